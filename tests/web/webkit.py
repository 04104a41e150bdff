"""posthouse-web for the tests: the server, a client of its API, and a real browser."""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import urllib.parse

from kit import BUILD, POSTHOUSE, ROOT, SLOW, Posthouse, free_port, make_cert, server_tls, wait_for

GLOBAL, OF_DOMAIN, SECRET = "boss@admin.example", "local@admin.example", "correct horse 1"
SHOTS = ROOT / "build" / "screenshots"
OPENAPI = json.loads((ROOT / "web" / "openapi.json").read_text())


class Web(Posthouse):
    """A daemon and its page.  With no store given it is the embedded one."""

    def __init__(self, main="", **kw):
        self.web_port = free_port()
        super().__init__(main + f"\nweb_listen = 127.0.0.1:{self.web_port}\nweb_owner = www-data\n"
                         "smtp_sasl_security_options = noanonymous\n", **kw)
        self.web = self.web_preexec = None

    def start(self):
        super().start()
        self.start_web()

    def start_daemon(self):
        super().start()

    def start_web(self):
        self.web_out = open(self.dir / "web-stderr", "ab")
        self.web = subprocess.Popen([BUILD / "src" / "posthouse-web", "-c", self.dir, "-f"], stdout=self.web_out, stderr=self.web_out,
                                    env=self.env(), preexec_fn=self.web_preexec)
        wait_for(self._serves)

    def _serves(self):
        "the page's server"
        if self.web.poll() is not None:
            raise AssertionError("posthouse-web ended: " + (self.dir / "web-stderr").read_text())
        try:
            return self.api().request("GET", "/healthz")[0] in (200, 503)
        except OSError:
            return False

    def stop_web(self):
        if self.web is not None:
            self.web.terminate()
            self.web.wait(20 * SLOW)
            self.web_out.close()
            self.web = None
            err = (self.dir / "web-stderr").read_text()
            assert "Sanitizer" not in err and "runtime error" not in err, err[-8000:]

    def stop(self):
        self.stop_web()
        super().stop()

    def command(self, *args, **kw):
        return subprocess.run([POSTHOUSE, "-c", self.dir, *args], capture_output=True, text=True, check=True, env=self.env(), **kw).stdout

    @property
    def url(self):
        return f"http://127.0.0.1:{self.web_port}/"

    def api(self, user=None, password=SECRET, token=None):
        client = Api(self.web_port, token)
        if user is not None:
            def let_in():
                "being let in: an address that guessed wrong waits"
                status, answer = client.request("POST", "/api/login", form={"username": user, "password": password})
                assert status in (200, 429), (status, answer)
                return status == 200
            wait_for(let_in, 60, 0.2)
        return client


class Api:
    """A program that uses the API: a cookie or a token, no browser's headers."""

    def __init__(self, port, token=None):
        self.port, self.cookie, self.token, self.headers = port, None, token, {}

    def request(self, method, path, body=None, form=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * SLOW)
        h = dict(self.headers, **(headers or {}))
        if self.cookie:
            h["Cookie"] = self.cookie
        if self.token:
            h["Authorization"] = "Bearer " + self.token
        data = None
        if form is not None:
            data, h["Content-Type"] = urllib.parse.urlencode(form), "application/x-www-form-urlencoded"
        elif body is not None:
            data, h["Content-Type"] = json.dumps(body), "application/json"
        c.request(method, urllib.parse.quote(path, safe="/?&=%@:<>,;+!*'()[]$#~."), data, h)
        r = c.getresponse()
        text = r.read()
        self.last = r
        got = r.getheader("Set-Cookie")
        if got:
            self.cookie = got.split(";")[0]
        c.close()
        kind = r.getheader("Content-Type") or ""
        return r.status, json.loads(text) if "json" in kind else text.decode()

    def ok(self, method, path, **kw):
        status, answer = self.request(method, path, **kw)
        assert status == 200 and answer.get("_success") is True, (method, path, status, answer)
        return answer.get("_data")

    def fails(self, status, method, path, **kw):
        got, answer = self.request(method, path, **kw)
        assert got == status and answer["_success"] is False and answer["_msg"], (method, path, got, answer)
        return answer["_msg"]

    def get(self, path):
        return self.ok("GET", path)


class Browser:
    """Debian's Chromium, driven by Playwright."""

    def __init__(self, base, **options):
        self.base = base
        env = dict(os.environ, PAGE_MODULES=str(ROOT / "web" / "node_modules"), PAGE_TIMEOUT=str(15000 * SLOW))
        self.proc = subprocess.Popen(["node", str(pathlib.Path(__file__).parent / "browser.mjs"), json.dumps(options)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def js(self, code, **args):
        """Runs JavaScript with page, context, seen and args; its return value."""
        self.proc.stdin.write(json.dumps({"code": code, "args": args}) + "\n")
        self.proc.stdin.flush()
        line = self.proc.stdout.readline()
        assert line, "the browser ended"
        answer = json.loads(line)
        assert "error" not in answer, answer.get("error")
        return answer["value"]

    def open(self, place="", wait=None):
        """A place of the page ("#/domains"); wait: until this heading is there."""
        self.js("await page.goto('about:blank'); await page.goto(args.url)", url=self.base + place)
        if wait:
            self.heading(wait)

    def heading(self, name):
        self.js("await page.getByRole('heading', {name: args.name, level: 1}).waitFor()", name=name)

    def sign_in(self, user=GLOBAL, password=SECRET):
        self.open("", "Sign in")
        self.js("""await page.getByLabel('Email address').fill(args.user); await page.getByLabel('Password').fill(args.password);
                   await page.getByRole('button', {name: 'Sign in'}).click(); await page.getByRole('button', {name: 'Sign out'}).waitFor()""",
                user=user, password=password)

    def fill(self, label, value):
        self.js("await page.getByLabel(args.label, {exact: true}).fill(args.value)", label=label, value=value)

    def click(self, role, name):
        self.js("await page.getByRole(args.role, {name: args.name, exact: true}).click()", role=role, name=name)

    def sees(self, text):
        self.js("await page.getByText(args.text).first().waitFor()", text=text)

    def text(self):
        return self.js("return await page.locator('body').innerText()")

    def axe(self):
        """What axe finds wrong with the page as it is."""
        return self.js("""await page.evaluate(axe);  // not as a script of the page: its policy would refuse it
                          const r = await page.evaluate(() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}));
                          return r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target + ' ' + n.failureSummary).join(' | '))""")

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.js("await page.screenshot({path: args.path, fullPage: true})", path=str(SHOTS / (name + ".png")))

    def close(self):
        self.proc.stdin.close()
        self.proc.wait(30)


def site(dns, main="", **kw):
    """A page with the embedded store: two domains, two users, two administrators."""
    w = Web(main, dns=dns, **kw)
    for d in ("a.example", "b.example"):
        w.command("domain", "add", d)
        w.command("user", "add", f"ann@{d}", input=SECRET + "\n")
    w.command("admin", "add", GLOBAL, input=SECRET + "\n")
    w.command("admin", "add", OF_DOMAIN, "a.example", input=SECRET + "\n")
    return w


@contextlib.contextmanager
def hanging(w):
    """The daemon's processes do nothing meanwhile."""
    pids = w.children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def log_in(w, user, password, *forwarded):
    """The answer's status, by way of a proxy that sends these fields as X-Forwarded-For."""
    c = http.client.HTTPConnection("127.0.0.1", w.web_port, timeout=30 * SLOW)
    body = urllib.parse.urlencode({"username": user, "password": password})
    c.putrequest("POST", "/api/login")
    for value in forwarded:
        c.putheader("X-Forwarded-For", value)
    c.putheader("Content-Type", "application/x-www-form-urlencoded")
    c.putheader("Content-Length", str(len(body)))
    c.endheaders(body.encode())
    status = c.getresponse().status
    c.close()
    return status


def tls():
    """A relay host's certificate."""
    with tempfile.TemporaryDirectory() as d:
        return server_tls(*make_cert(pathlib.Path(d)))


def run(api, **body):
    """A run to its end, as JSON."""
    ident = api.ok("POST", "/api/runs", body=body)["id"]
    return wait_for(lambda: (r := api.get(f"/api/run/{ident}"))["over"] and r)
