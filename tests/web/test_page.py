"""The page in a real browser: Debian's Chromium, driven by Playwright."""
import contextlib
import json
import re
import sqlite3
import subprocess
import threading

import pytest
from kit import ROOT, FakeRelay, wait_for
from webkit import GLOBAL, OF_DOMAIN, SECRET, Browser, Web, site, tls


@contextlib.contextmanager
def browser(url, **options):
    b = Browser(url, **options)
    try:
        yield b
        seen = b.js("return seen")
        assert seen["foreign"] == [] and seen["errors"] == [], seen
        ids = b.js("return await page.evaluate(() => [...document.querySelectorAll('[id]')].map((e) => e.id))")
        assert len(ids) == len(set(ids)), ids
    except Exception:
        with contextlib.suppress(Exception):
            b.shot("failed")
        raise
    finally:
        b.close()


@pytest.fixture(scope="module")
def world(dns):
    """Two relay hosts, one of which refuses the login; mail that went and mail that waits."""
    good = FakeRelay(auth=["PLAIN", "LOGIN"], need_auth=True, users={"office": "pw"}, tls=tls(), name="smtp.provider.example")
    other, refusing = FakeRelay(), FakeRelay(auth=["PLAIN"], need_auth=True, users={}, tls=tls())
    with site(dns, f"relayhost = [127.0.0.1]:{other.port}\nminimal_backoff_time = 300s\n") as w:
        w.good, w.other, w.refusing = good, other, refusing
        for user in ("bob@a.example", "cid@a.example"):
            w.command("user", "add", user, input=SECRET + "\n")
        w.hop = f"[127.0.0.1]:{good.port}"
        w.command("record", "set", "provider", f"hosts={w.hop}", "tls=encrypt", "user=office", "password", input="pw\n")
        w.command("record", "set", "broken", f"hosts=[127.0.0.1]:{refusing.port}", "tls=encrypt", "user=office", "password", input="old\n")
        w.command("relay", "set", "@a.example", w.hop)
        w.command("relay", "set", "bob@a.example", f"[127.0.0.1]:{refusing.port}")
        for sender in ("ann@a.example", "ann@a.example", "ann@b.example", "bob@a.example", "bob@a.example"):
            w.send(sender=sender, rcpts=["friend@far.example"])
        wait_for(lambda: len(good.mails) == 2 and len(other.mails) == 1)
        wait_for(lambda: w.api(GLOBAL).get("/api/queue/counts")["deferred"] == 2)
        yield w
    for r in (good, other, refusing):
        r.stop()


def test_relay_tab_of_a_user(world):
    """As a newcomer would: sign in, find the user, set his relay host, see what will happen, and mail goes that way."""
    with browser(world.url) as b:
        b.sign_in()
        b.js("await page.getByRole('searchbox').fill('cid@'); await page.keyboard.press('Enter')")
        b.js("await page.getByRole('link', {name: 'cid@a.example'}).click()")
        b.heading("Profile of user: cid@a.example")
        b.sees(f"inherits @a.example: {world.hop} as account office, of the relay record \"provider\"")
        assert b.js("return await page.getByRole('button', {name: 'Save changes'}).isDisabled()")
        b.fill("Relay outgoing email to", "[127.0.0.1")
        b.sees("missing ']'")  # the daemon's own parser, while it is typed
        assert b.js("return await page.getByRole('button', {name: 'Save changes'}).isDisabled()")
        b.fill("Relay outgoing email to", f"[127.0.0.1]:{world.other.port}")
        b.sees("Posthouse understands this.")
        b.sees("There are changes that are not saved")
        b.click("button", "Save changes")
        b.sees("Profile has been updated.")
        b.sees("has a setting of its own")
        world.send(sender="cid@a.example", content="Subject: by-the-tab\r\n\r\nx\r\n")
        world.other.wait_mail(b"by-the-tab")
        assert f"cid@a.example{' ' * 28}[127.0.0.1]:{world.other.port}".split() == next(
            line.split() for line in world.command("relay", "list").splitlines() if line.startswith("cid@"))
        b.fill("Relay outgoing email to", "")
        b.click("button", "Save changes")
        b.sees("inherits @a.example")
        assert "cid@a.example" not in world.command("relay", "list")


def test_relay_tab_of_a_domain(world):
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/domain/b.example/relay", "Profile of domain: b.example")
        b.sees("uses the relay host for everybody (relayhost)")
        b.js("await page.getByText('Sample Settings').first().click()")
        b.click("button", "Use example.com:25")
        assert b.js("return await page.getByLabel('Relay outgoing email to').inputValue()") == "example.com:25"
        b.fill("Relay outgoing email to", "")
        b.fill("Relay received email to", "smtp:[10.0.0.1]:25")
        b.js("await page.getByLabel('Relay without verifying local recipients').check()")
        b.click("button", "Save changes")
        b.sees("Profile has been updated.")
        api = world.api(GLOBAL)
        saved = api.get("/api/domain/b.example")
        assert (saved["transport"], saved["is_backupmx"], saved["outboundRelay"]) == ("smtp:[10.0.0.1]:25", "yes", "")
        # The backup-MX rule.
        b.js("await page.getByLabel('Mark as backup MX').check(); await page.getByLabel('Primary MX').fill('202.96.134.133')")
        b.sees("This domain is a backup MX, can not set custom relay.")
        assert b.js("return await page.getByLabel('Relay received email to').isDisabled()")
        b.click("button", "Save changes")
        wait_for(lambda: api.get("/api/domain/b.example")["transport"] == "relay:202.96.134.133")
        b.open("#/domains", "Domains")
        b.sees("Backup MX")
        b.open("#/domain/b.example/relay", "Profile of domain: b.example")
        b.js("await page.getByLabel('Mark as backup MX').uncheck()")
        b.click("button", "Save changes")
        wait_for(lambda: api.get("/api/domain/b.example")["is_backupmx"] == "no" and api.get("/api/domain/b.example")["transport"] == "dovecot")


def test_what_is_typed_after_saving_stays(world):
    """What was saved is loaded again; what is typed until that comes is not lost."""
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/domain/b.example/relay", "Profile of domain: b.example")
        b.sees("uses the relay host for everybody (relayhost)")
        b.js("""const go = new Promise((done) => { seen.go = done; });
                await page.route('**/api/domain/b.example', async (r) => { if (r.request().method() === 'GET') await go; await r.continue(); });""")
        b.fill("Relay outgoing email to", "[saved.example]:2525")
        b.sees("Posthouse understands this.")
        b.click("button", "Save changes")
        b.sees("Profile has been updated.")
        b.fill("Relay received email to", "smtp:[typed.example]")
        b.js("const got = page.waitForResponse(r => r.url().endsWith('/api/domain/b.example')); seen.go(); await (await got).finished()")
        b.js("await page.unrouteAll({behavior: 'wait'}); await page.evaluate(() => new Promise((done) => setTimeout(done)))")
        values = [b.js("return await page.getByLabel(args.l).inputValue()", l=f"Relay {way} email to") for way in ("outgoing", "received")]
        assert values == ["[saved.example]:2525", "smtp:[typed.example]"]
        b.click("button", "Save changes")
        wait_for(lambda: world.api(GLOBAL).get("/api/domain/b.example")["transport"] == "smtp:[typed.example]")
        world.api(GLOBAL).ok("PUT", "/api/domain/b.example", form={"outboundRelay": "", "transport": ""})


def test_domain_administrator(world):
    with browser(world.url) as b:
        b.sign_in(OF_DOMAIN)
        b.heading("Domains")
        b.sees("a.example")
        text = b.text()
        assert "a.example" in text and "b.example" not in text
        assert b.js("return await page.getByRole('navigation', {name: 'Main'}).getByRole('link').allInnerTexts()") == ["Domains", "Relays", "Test", "API tokens"]
        b.open("#/queue", "Domains")  # there is no such place for him
        b.open("#/domain/b.example/relay")
        b.sees("Permission denied.")
        b.open("#/relays", "Relays")
        b.sees("Here are those that belong to the domains that you administer.")
        assert "provider" not in b.text() and "broken" not in b.text()
        b.click("link", "Add a relay")
        b.heading("New relay record")
        b.fill("Name", "ours")
        b.fill("Belongs to the domain", "a.example")
        b.fill("Host 1", "[smtp.ours.example]:587")
        b.fill("Account", "me")
        b.fill("Password", "pw")
        b.shot("own-record-new")
        b.click("button", "Save changes")
        b.heading("ours")
        b.shot("own-record")
        assert world.api(GLOBAL).get("/api/relay/ours")["for"] == "@a.example"
        b.open("#/relays", "Relays")
        b.sees("of a.example")
        b.shot("own-records")
        world.api(OF_DOMAIN).ok("DELETE", "/api/relay/ours")
        b.open("#/domain/a.example/relay", "Profile of domain: a.example")
        b.sees("of the relay record")
        assert "account office" not in b.text()  # the record is shared: whose account it is, is not theirs to see
        world.api(GLOBAL)
        with sqlite3.connect(world.dir / "data" / "accounts.db", 10) as db:
            db.execute("UPDATE domain SET settings = 'disabled_domain_profiles:relay;' WHERE domain = 'a.example'")
        try:
            b.open("#/domain/a.example/relay", "Profile of domain: a.example")
            b.sees("The Relay tab is disabled for this domain by its administrator.")
            assert b.js("return await page.getByRole('link', {name: 'Relay', exact: true}).count()") == 0
        finally:
            with sqlite3.connect(world.dir / "data" / "accounts.db", 10) as db:
                db.execute("UPDATE domain SET settings = '' WHERE domain = 'a.example'")


def test_first_administrator(dns):
    w = Web("", dns=dns)
    link = re.search(r"  (http://\S+)", w.command("admin", "link", "me@admin.example"))[1]
    with w, browser(w.url) as b:
        b.open(link.removeprefix(w.url), "Welcome")
        b.fill("New password", SECRET)
        b.fill("The same again", SECRET + "x")
        b.click("button", "Set the password and sign in")
        b.sees("The two passwords differ.")
        b.fill("The same again", SECRET)
        b.click("button", "Set the password and sign in")
        b.heading("Domains")
        assert "welcome" not in b.js("return page.url()")
        b.click("button", "Sign out")
        b.heading("Sign in")
        b.sign_in("me@admin.example")
        b.open(link.removeprefix(w.url), "Welcome")
        b.fill("New password", SECRET)
        b.fill("The same again", SECRET)
        b.click("button", "Set the password and sign in")
        b.sees("This link is not valid any more.")


def test_relays(world):
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/relays", "Relays")
        b.sees("User name or password is wrong, or the account may not log in this way.")
        b.js("await page.getByRole('link', {name: 'Add a relay'}).click()")
        b.js("await page.getByLabel('Provider').selectOption({label: 'SendGrid'})")
        b.sees("The key needs the permission Mail Send")
        value = lambda label: b.js("return await page.getByLabel(args.label, {exact: true}).inputValue()", label=label)
        assert (value("Name"), value("Host 1"), value("TLS mode")) == ("sendgrid", "[smtp.sendgrid.net]:587", "verify")
        b.fill("Name", "office 2")
        b.fill("Host 1", world.hop)
        b.click("button", "Add a host")
        b.fill("Host 2", "[second.example]:587")
        b.click("button", "Move host 2 up")
        assert value("Host 1") == "[second.example]:587"
        b.click("button", "Move host 2 up")
        b.js("await page.getByLabel('TLS mode').selectOption('encrypt')")
        b.fill("Account", "office")
        b.fill("Password", "pw")
        b.click("button", "Save changes")
        b.heading("office 2")
        assert value("Password") == "" and "pw" not in b.js("return await page.content()").split()
        record = world.api(GLOBAL).get("/api/relay/office 2")
        assert (record["hosts"], record["tls"], record["password_set"]) == (f"{world.hop}, [second.example]:587", "encrypt", True)
        b.fill("Account", "other")
        b.click("button", "Save changes")
        b.sees("the password is needed again")
        b.click("button", "Delete this relay record")
        b.js("await page.getByRole('dialog').getByRole('button', {name: 'Cancel'}).click()")
        b.click("button", "Delete this relay record")
        b.js("await page.getByRole('dialog').getByRole('button', {name: 'Delete this relay record'}).click()")
        b.heading("Relays")
        assert "office 2" not in [r["name"] for r in world.api(GLOBAL).get("/api/relays")["records"]]


def test_a_record_stays_for_accounts_that_are_gone(world):
    """Who gets such an address later has the login: the record's page names them, and its form takes them off."""
    w, api = world, world.api(GLOBAL)
    w.command("user", "add", "late@a.example", input=SECRET + "\n")
    api.ok("PUT", "/api/relay/some", body={"hosts": "[some.example]:587", "user": "office", "password": "pw",
                                           "for": "main.cf, late@a.example, @a.example, @gone.example"})
    says = "These may use this relay, and are not in the accounts store:"
    with browser(w.url) as b:
        b.sign_in()
        def named():
            b.open("#/relay/some", "some")
            b.js("await page.getByText('Used by').first().waitFor()")
            return b.js("return await page.locator('section', {hasText: args.says}).locator('li').allInnerTexts()", says=says)
        assert named() == ["@gone.example"]
        with contextlib.closing(sqlite3.connect(w.dir / "data" / "accounts.db", 20)) as c, c:
            assert c.execute("DELETE FROM mailbox WHERE username = 'late@a.example'").rowcount == 1
        assert named() == ["late@a.example", "@gone.example"]
        assert b.axe() == []
        b.shot("record-of-accounts-that-are-gone")
        b.js("await page.locator('summary', {hasText: 'More'}).first().click()")
        b.fill("Who may use it", "main.cf, @a.example")
        b.click("button", "Save changes")
        b.sees("The relay record was saved.")
        b.js("await page.getByText(args.says).waitFor({state: 'detached'})", says=says)
        assert api.get("/api/relay/some")["unknown"] == []
    assert w.api(OF_DOMAIN).request("GET", "/api/relay/some")[0] == 404
    api.ok("DELETE", "/api/relay/some")


def test_a_record_stays_for_who_takes_the_relay_host_away(world):
    """The Relay tab says so, to who administers the server alone."""
    w, api = world, world.api(GLOBAL)
    api.ok("PUT", "/api/relay/stays", body={"hosts": "[stays.example]:587", "user": "office", "password": "pw"})
    says = "Whatever stands here, these relay records are for it, and may be chosen by who administers it: stays"
    with browser(w.url) as b:
        b.sign_in()
        b.open("#/user/ann@b.example/relay", "Profile of user: ann@b.example")
        for value in "stays", "":
            assert says not in b.text() or value == ""
            b.fill("Relay outgoing email to", value)
            b.click("button", "Save changes")
            b.sees(says)
            wait_for(lambda: api.get("/api/user/ann@b.example")["outboundRelay"] == value)
        b.open("#/user/ann@b.example/relay", "Profile of user: ann@b.example")
        b.sees(says)
        assert b.axe() == []
        b.shot("record-stays")
    assert api.get("/api/domain/b.example")["records"] == []
    api.ok("PUT", "/api/relay/stays", body={"for": "@a.example"})
    assert "stays" in api.get("/api/user/ann@a.example")["records"]
    assert w.api(OF_DOMAIN).get("/api/user/ann@a.example")["records"] == []
    api.ok("DELETE", "/api/relay/stays")


def test_two_tabs(world):
    """What another tab has saved is not undone: the page says so, shows it, and the next save counts."""
    api = world.api(GLOBAL)
    value = lambda label: b.js("return await page.getByLabel(args.label, {exact: true}).inputValue()", label=label)
    api.ok("PUT", "/api/relay/twice?new=yes", body={"hosts": "[twice.example]:587", "tls": "may"})
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/relay/twice", "twice")
        b.fill("Host 1", "[mine.example]:587")
        api.ok("PUT", "/api/relay/twice", body={"tls": "secure"})
        b.click("button", "Save changes")
        b.sees("Somebody else has changed it since you read it.")
        wait_for(lambda: (value("Host 1"), value("TLS mode")) == ("[twice.example]:587", "secure"))
        b.fill("Host 1", "[mine.example]:587")
        b.click("button", "Save changes")
        b.sees("The relay record was saved.")
        record = api.get("/api/relay/twice")
        assert (record["hosts"], record["nexthop"], record["tls"]) == ("[mine.example]:587", "[mine.example]:587", "secure")
        api.ok("DELETE", "/api/relay/twice")
        b.open("#/user/cid@a.example/relay", "Profile of user: cid@a.example")
        had = api.get("/api/user/cid@a.example")
        b.fill("Relay outgoing email to", "[late.example]")
        api.ok("PUT", "/api/user/cid@a.example", body={"outboundRelay": "[early.example]"})
        b.click("button", "Save changes")
        b.sees("Somebody else has changed it since you read it.")
        wait_for(lambda: value("Relay outgoing email to") == "[early.example]")
        api.ok("PUT", "/api/user/cid@a.example", body={"outboundRelay": had["outboundRelay"]})


def test_test_and_explain(world):
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/user/ann@a.example/relay", "Profile of user: ann@a.example")
        b.click("link", "Test this road")
        b.heading("Test and explain")
        b.fill("Recipient (may be empty)", "friend@far.example")
        b.click("button", "Start")
        b.heading("Test from ann@a.example to friend@far.example")
        b.sees("All stages passed.")
        text = b.text()
        for stage in ("dns", "connect", "greeting", "tls", "credentials", "mail", "rcpt"):
            assert stage in text
        address = b.js("return page.url()")
        b.js("await page.goto('about:blank'); await page.goto(args.url)", url=address)  # a result can be linked to
        b.sees("All stages passed.")
        b.open("#/relay/broken", "broken")
        b.click("link", "Test this road")
        b.click("button", "Start")
        b.sees("It would not go through: see above.")
        b.sees("User name or password is wrong")


# The answer to an order for all comes when one message has been chosen for the next order.
CHOSEN_MEANWHILE = """let go; const held = new Promise(done => go = done);
    await page.route('**/api/queue/release', async r => {
        const answer = await r.fetch(); await held; await r.fulfill({response: answer}); });
    await page.getByLabel('Apply to').selectOption('all');
    await page.getByRole('button', {name: 'Release', exact: true}).click();
    await page.getByLabel('Apply to').selectOption('selected');
    await page.getByLabel('Select ' + args.id).check();
    const answered = page.waitForResponse('**/api/queue/release'), read = page.waitForResponse('**/api/queue?*');
    go(); await answered; await read;
    if (!await page.getByLabel('Select ' + args.id).isChecked()) throw new Error('it is not chosen any more');"""


def test_queue(world):
    api = world.api(GLOBAL)
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/queue", "Queue")
        b.js("await page.getByRole('link', {name: 'broken'}).first().click()")
        b.sees("Last tried at broken")
        ids = [m["queue_id"] for m in api.get("/api/queue?sender=bob")["messages"]]
        b.js("await page.getByLabel('Select ' + args.id).check()", id=ids[0])
        b.click("button", "Hold")
        b.sees("Done: 1 message.")
        wait_for(lambda: [m["queue_id"] for m in api.get("/api/queue?queue=hold")["messages"]] == ids[:1])
        # Live: what comes while the page is looked at appears without anybody asking.
        world.send(sender="bob@a.example", rcpts=["late@far.example"])
        b.sees("late@far.example")
        late = api.get("/api/queue?recipient=late")["messages"][0]["queue_id"]
        b.js(CHOSEN_MEANWHILE, id=late)
        wait_for(lambda: api.get("/api/queue?queue=hold")["messages"] == [])
        b.click("button", "Delete")
        b.js("await page.getByRole('dialog').getByRole('button', {name: 'Delete'}).click()")
        wait_for(lambda: api.get("/api/queue?recipient=late")["messages"] == [])
        b.js("await page.getByText('late@far.example').waitFor({state: 'detached'})")
        assert len(api.get("/api/queue")["messages"]) == 2


def test_session_ends_while_the_queue_is_watched(world):
    """The live queue asks for the password again, without a click."""
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/queue", "Queue")
        with contextlib.closing(sqlite3.connect(world.dir / "data" / "web.db")) as db:
            db.execute("DELETE FROM session")
            db.commit()
        b.heading("Sign in")


def test_signing_out_that_fails_is_said(world):
    """Who is not signed out is not shown as if: the server fails, or another tab has begun another session."""
    fails = {"no answer": "r.abort()", "an error": "r.fulfill({status: 503, contentType: 'application/json', body: '{}'})"}
    with browser(world.url) as b:
        b.sign_in()
        for what, answer in fails.items():
            b.js(f"await page.route('**/api/logout', r => {answer})")
            b.click("button", "Sign out")
            b.sees("You are still signed in: signing out has failed. Try again.")
            assert b.axe() == [], what
            b.js("""await page.unroute('**/api/logout'); await page.reload();
                    await page.getByRole('button', {name: 'Sign out'}).waitFor()""")
        b.js("""await page.evaluate(body => fetch('api/login', {method: 'POST', body}), args.body)""",
             body=json.dumps({"username": GLOBAL, "password": SECRET}))
        b.click("button", "Sign out")
        b.sees("You are still signed in: signing out has failed. Try again.")
        b.shot("signing-out-fails")
        b.click("button", "Sign out")
        b.heading("Sign in")
        assert b.js("return await page.evaluate(() => fetch('api/session').then(r => r.status))") == 401


SLOW_SERVER = """await page.route('**/api/**', async r => {
    if (r.request().method() !== 'GET') await new Promise(done => setTimeout(done, 500));
    await r.continue(); })"""


def test_twice_is_once(world):
    """Whoever clicks once more while the server is slow saves once, and is not told of somebody else."""
    with browser(world.url) as b:
        b.sign_in()
        b.js(SLOW_SERVER)
        b.open("#/domain/b.example/relay", "Profile of domain: b.example")
        b.fill("Relay outgoing email to", "[slow.example]:25")
        twice = "await page.getByRole('button', {name: args.name, exact: true}).dblclick()"
        b.js(twice, name="Save changes")
        b.sees("Profile has been updated.")
        b.js("await page.waitForLoadState('networkidle')")
        assert "Somebody else" not in b.text()
        b.open("#/relay", "New relay record")
        b.fill("Name", "twice")
        b.fill("Host 1", "[slow.example]:26")
        b.js(twice, name="Save changes")
        b.heading("twice")
        assert "already" not in b.text()
        b.open("#/tokens", "API tokens")
        b.fill("Name", "twice")
        b.js(twice, name="Make a token")
        b.js("await page.locator('table').getByText('twice').first().waitFor(); await page.waitForLoadState('networkidle')")
        assert b.js("return await page.locator('table').getByText('twice').count()") == 1
        b.js("await page.getByRole('row', {name: 'twice'}).getByRole('button').click()")
        b.open("#/domain/b.example/relay", "Profile of domain: b.example")
        b.fill("Relay outgoing email to", "")
        b.click("button", "Save changes")
        b.sees("Profile has been updated.")
        b.open("#/relay/twice", "twice")
        b.click("button", "Delete this relay record")
        b.js("await page.getByRole('dialog').getByRole('button', {name: 'Delete'}).dblclick()")
        b.heading("Relays")
        assert "no relay record of that name" not in b.text()


def test_steps_go_on_when_their_stream_breaks(world):
    go_on = threading.Event()
    relay = FakeRelay(replies={"EHLO": lambda line: go_on.wait(60) and None})
    with browser(world.url) as b:
        b.sign_in()
        b.js("""globalThis.streams = 0;
                await page.route('**/api/run/*', r => {
                    const stream = r.request().headers().accept.includes('text/event-stream');
                    return stream && globalThis.streams++ === 0 ? r.abort() : r.continue(); })""")
        b.open(f"#/test?kind=test&sender=ann@b.example&relay=[127.0.0.1]:{relay.port}", "Test and explain")
        b.click("button", "Start")
        wait_for(lambda: b.js("return globalThis.streams"))
        b.sees("Running")
        go_on.set()
        b.js("await page.getByRole('status').filter({hasText: /All stages passed|It would not/}).waitFor()")
    relay.stop()


def test_an_address_that_is_cut_off_is_a_page(world):
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/relay/%", "%")
        b.sees("There is no relay record of that name.")


def test_keyboard_alone(world):
    """Sign in and save a relay host without a mouse."""
    with browser(world.url) as b:
        b.open("", "Sign in")
        focus = lambda: b.js("const e = await page.evaluateHandle(() => document.activeElement); "
                             "return await e.evaluate(x => x.getAttribute('aria-label') || x.labels?.[0]?.innerText || x.innerText || x.tagName)")
        def tab_to(name, most=40):
            for _ in range(most):
                b.js("await page.keyboard.press('Tab')")
                if focus() == name:
                    return
            raise AssertionError(f"Tab never came to {name}, but to {focus()}")
        tab_to("Email address")
        b.js("await page.keyboard.type(args.t)", t=GLOBAL)
        tab_to("Password")
        b.js("await page.keyboard.type(args.t); await page.keyboard.press('Enter'); await page.getByRole('button', {name: 'Sign out'}).waitFor()", t=SECRET)
        b.open("#/domains", "Domains")
        tab_to("b.example")
        b.js("await page.keyboard.press('Enter')")
        b.heading("Profile of domain: b.example")
        assert focus().startswith("Profile of domain")  # a screen reader hears where it is
        tab_to("Relay outgoing email to")
        b.js("await page.keyboard.type('[keys.example]:587'); await page.getByText('Posthouse understands this.').waitFor()")
        tab_to("Save changes")
        b.js("await page.keyboard.press('Enter'); await page.getByText('Profile has been updated.').waitFor()")
        api = world.api(GLOBAL)
        assert api.get("/api/domain/b.example")["outboundRelay"] == "[keys.example]:587"
        api.ok("PUT", "/api/domain/b.example", form={"outboundRelay": ""})
        b.open("#/domains", "Domains")
        b.js("await page.keyboard.press('Tab')")
        assert focus() == "Skip to the content"
        b.js("await page.keyboard.press('Enter')")
        assert focus() == "Domains"


PAGES = {
    "dashboard": ("#/dashboard", "Dashboard"), "domains": ("#/domains", "Domains"), "users": ("#/users/a.example", "Users of a.example"),
    "domain-relay": ("#/domain/a.example/relay", "Profile of domain: a.example"), "domain-general": ("#/domain/a.example/general", "Profile of domain: a.example"),
    "user-relay": ("#/user/bob@a.example/relay", "Profile of user: bob@a.example"), "relays": ("#/relays", "Relays"), "relay": ("#/relay/broken", "broken"),
    "relay-new": ("#/relay", "New relay record"), "queue": ("#/queue", "Queue"), "test": ("#/test?kind=test&sender=ann@a.example", "Test and explain"),
    "search": ("#/search?q=a", "Search: a"), "log": ("#/log", "Admin log"), "tokens": ("#/tokens", "API tokens"), "missing": ("#/domain/none.example/relay", "Profile of domain: none.example"),
}
LOOKS = {"light": {}, "dark": {"colorScheme": "dark"}, "phone": {"viewport": {"width": 375, "height": 740}, "hasTouch": True}}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page(world, look):
    """Screenshots of all pages; axe finds nothing; nothing is wider than a phone."""
    narrow = look == "phone"
    def done(b, name):
        b.js("while (await page.getByText('Loading …').count()) await page.waitForTimeout(20)")
        b.shot(f"{look}-{name}")
        assert b.axe() == [], name
        if narrow:
            assert b.js("return await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)") <= 0, name
    with browser(world.url, **LOOKS[look]) as b:
        b.open("", "Sign in")
        done(b, "sign-in")
        b.open("#/welcome/x", "Welcome")
        done(b, "welcome")
        b.sign_in()
        for name, (place, title) in PAGES.items():
            b.open(place, title)
            if name in ("domain-relay", "user-relay"):
                b.js("await page.getByText('as account').waitFor()")  # all is there
                b.js("for (const d of await page.locator('details').all()) await d.locator('summary').click()")
            if name == "dashboard":
                b.js("await page.locator('canvas').waitFor()")
            done(b, name)
        b.open("#/test?kind=test&sender=bob@a.example", "Test and explain")
        b.click("button", "Start")
        b.sees("It would not go through")
        done(b, "result")
        b.open("#/queue", "Queue")
        b.js("await page.getByLabel('Select all on this page').check()")
        b.click("button", "Delete")
        done(b, "dialog")
        b.js("await page.keyboard.press('Escape'); await page.getByRole('dialog').waitFor({state: 'detached'})")


def test_first_view_is_small(world):
    with browser(world.url) as b:
        b.sign_in()
        b.open("#/domains", "Domains")
        sizes = {}
        for url in b.js("return Object.keys(seen.bytes)"):
            if url.endswith(".js"):
                import urllib.request
                r = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
                with urllib.request.urlopen(r) as s:
                    assert s.headers["Content-Encoding"] == "gzip" and "immutable" in s.headers["Cache-Control"]
                    sizes[url.rsplit("/", 1)[1]] = len(s.read())
        print(sizes)
        assert sum(sizes.values()) < 100_000


def test_texts_are_in_one_file():
    """No words of the page's own between its tags: they are all in text.ts."""
    words = r"(?<!=)>\s*([A-Z][a-z]+(?: [a-z]+)*[.:]?)\s*<|(?:label|title|hint|placeholder)=\"([^\"]+ [^\"]+)\""
    bad = []
    for p in (ROOT / "web" / "src").rglob("*.tsx"):
        code = re.sub(r"//.*", "", p.read_text())
        bad += [f"{p.name}:{code.count(chr(10), 0, m.start()) + 1}: {m[0]}" for m in re.finditer(words, code)]
    assert not bad, bad


def test_the_page_in_the_tree_is_the_one_that_its_source_makes(tmp_path):
    """`make web` puts it there; a machine without node builds with what is in web/built."""
    command = "npm run --silent types && npx vite build --logLevel error --outDir $0"
    r = subprocess.run(["sh", "-c", command, tmp_path / "built"], cwd=ROOT / "web", capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    made, kept = ({str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
                  for top in (tmp_path / "built", ROOT / "web" / "built"))
    assert made.keys() == kept.keys() and made == kept, "web/built is not what web/src makes: make web"


def test_the_page_is_formatted():
    """As `npm run format` leaves it: prettier, with what package.json says."""
    r = subprocess.run(["npm", "run", "--silent", "formatted"], cwd=ROOT / "web", capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
