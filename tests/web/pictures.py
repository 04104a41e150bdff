"""make pictures: the two screenshots of the README, from a small provider's day."""
import pathlib
import shutil
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1]), str(pathlib.Path(__file__).resolve().parent)]
sys.dont_write_bytecode = True
from kit import ROOT, FakeRelay, wait_for  # noqa: E402
from webkit import GLOBAL, SECRET, SHOTS, Browser, Web, tls  # noqa: E402


def relay(host, **kw):
    try:
        return FakeRelay(host, 587, **kw)
    except OSError:
        return FakeRelay(host, **kw)


def main():
    good = relay("127.0.0.2", auth=["PLAIN", "LOGIN"], need_auth=True, users={"office@example.com": "pw"}, tls=tls(), name="smtp.provider.net")
    strict = relay("127.0.0.3", auth=["LOGIN"], need_auth=True, users={}, tls=tls(), name="smtp.office365.com",
                   replies={"AUTH": "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox"})
    full = relay("127.0.0.4", replies={"RCPT": "450 4.2.0 Greylisted, please try again later"}, name="relay.server")
    at = {"smtp.provider.net": good, "smtp.office365.com": strict, "relay.server": full}
    hop = lambda name: f"[{name}]:{at[name].port}"
    with Web(f"relayhost = {hop('relay.server')}\nsmtp_host_lookup = native\nsmtp_dns_support_level = disabled\nresolver_hosts_file = {{dir}}/hosts\n",
             files={"hosts": "".join(f"{r.host} {name}\n" for name, r in at.items())}) as w:
        for d in ("example.com", "shop.example", "school.example"):
            w.command("domain", "add", d)
        for u in ("alice@example.com", "bob@shop.example", "carol@example.com", "dave@school.example"):
            w.command("user", "add", u, input=SECRET + "\n")
        w.command("admin", "add", GLOBAL, input=SECRET + "\n")
        w.command("record", "set", "provider", f"hosts={hop('smtp.provider.net')}", "tls=encrypt", "user=office@example.com", "password", input="pw\n")
        w.command("record", "set", "m365", f"hosts={hop('smtp.office365.com')}", "tls=encrypt", "user=bob@shop.example", "password", input="pw\n")
        w.command("relay", "set", "@example.com", hop("smtp.provider.net"))
        w.command("relay", "set", "@shop.example", hop("smtp.office365.com"))
        for sender, rcpt in (("alice@example.com", "friend@far.example"), ("bob@shop.example", "customer@elsewhere.example"),
                             ("bob@shop.example", "another@elsewhere.example"), ("dave@school.example", "parents@home.example")):
            w.send(sender=sender, rcpts=[rcpt])
        api = w.api(GLOBAL)
        good.wait_mails(1)
        wait_for(lambda: api.get("/api/queue/counts")["deferred"] == 3)
        b = Browser(w.url, deviceScaleFactor=1)
        b.sign_in()
        b.open("#/user/alice@example.com/relay", "Profile of user: alice@example.com")
        b.sees("inherits @example.com")
        b.js("await page.getByText('Sample Settings').first().click()")
        b.shot("relay-tab")
        b.open("#/queue", "Queue")
        b.sees("customer@elsewhere.example")
        b.shot("queue")
        b.close()
    for name in ("relay-tab", "queue"):
        shutil.copy(SHOTS / f"{name}.png", ROOT / "docs" / "images" / f"{name}.png")
    for r in at.values():
        r.stop()


if __name__ == "__main__":
    main()
