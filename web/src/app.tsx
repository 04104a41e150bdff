// Who is signed in, and which page is shown.
import { useEffect, useState } from "preact/hooks";
import { get, Me, post, setCsrf, whenSignedOut } from "./api";
import { Accounts } from "./pages/accounts";
import { Dashboard } from "./pages/dashboard";
import { Log } from "./pages/log";
import { Login, Welcome } from "./pages/login";
import { Profile } from "./pages/profile";
import { Queue } from "./pages/queue";
import { RelayForm, Relays } from "./pages/relays";
import { NewRun, Result } from "./pages/run";
import { Search } from "./pages/search";
import { Tokens } from "./pages/tokens";
import { go, to, usePlace, Place } from "./router";
import { text } from "./text";
import { Form, Messages } from "./ui";

function Content({ place, me }: { place: Place; me: Me }) {
  const [what, a, b] = place.parts;
  const key = location.hash;
  if (what === "domain" && a) return <Profile key={key} kind="domain" name={a} tab={b} me={me} />;
  if (what === "user" && a) return <Profile key={key} kind="user" name={a} tab={b} me={me} />;
  if (what === "users" && a) return <Accounts key={key} domain={a} args={place.args} />;
  if (what === "search") return <Search key={key} q={place.args.get("q") ?? ""} />;
  if (what === "test") return <NewRun key={key} args={place.args} me={me} />;
  if (what === "run" && a) return <Result key={key} id={a} />;
  if (what === "tokens") return <Tokens me={me} />;
  if (me.global) {
    if (what === "relays") return <Relays />;
    if (what === "relay") return <RelayForm key={key} name={a} />;
    if (what === "queue") return <Queue key={key} args={place.args} />;
    if (what === "log") return <Log key={key} args={place.args} />;
    if (what !== "domains") return <Dashboard />;
  }
  return <Accounts key={key} args={place.args} />;
}

function Header({ place, me, onOut }: { place: Place; me: Me; onOut: () => void }) {
  const [q, setQ] = useState("");
  const at = place.parts[0] ?? (me.global ? "dashboard" : "domains");
  const under: Record<string, string> = {
    domain: "domains",
    users: "domains",
    user: "domains",
    relay: "relays",
    run: "test",
  };
  const items = me.global
    ? ["dashboard", "domains", "relays", "queue", "test", "log", "tokens"]
    : ["domains", "test", "tokens"];
  const names = text.nav as Record<string, string>;
  return (
    <header class="top">
      <a class="brand" href="#/">
        {text.product}
      </a>
      <nav aria-label={text.nav.label}>
        <ul>
          {items.map((i) => (
            <li key={i}>
              <a href={`#/${i}`} aria-current={(under[at] ?? at) === i ? "page" : undefined}>
                {names[i]}
              </a>
            </li>
          ))}
        </ul>
      </nav>
      <Form class="find" label={text.search.label} onSubmit={() => go(`#/search?q=${encodeURIComponent(q)}`)}>
        <input
          type="search"
          aria-label={text.search.label}
          placeholder={text.search.button}
          value={q}
          onInput={(e) => setQ(e.currentTarget.value)}
        />
      </Form>
      <div class="me">
        <span title={me.global ? text.login.global : text.login.ofDomains}>
          <span class="unseen">{text.login.as} </span>
          {me.admin}
        </span>
        <button type="button" class="link" onClick={onOut}>
          {text.login.out}
        </button>
      </div>
    </header>
  );
}

export function App() {
  const place = usePlace();
  const [me, setMe] = useState<Me | null | undefined>(undefined);
  const look = () =>
    get<Me>("session").then(
      (m) => {
        setCsrf(m.csrf);
        setMe(m);
      },
      () => {
        setCsrf("");
        setMe(null);
      },
    );
  useEffect(() => {
    whenSignedOut(() => setMe(null));
    look();
  }, []);
  if (me === undefined) return <p class="quiet">{text.loading}</p>;
  if (place.parts[0] === "welcome" && place.parts[1])
    return (
      <main class="narrow">
        <Welcome
          token={place.parts[1]}
          onIn={() => {
            go(to("domains"));
            look();
          }}
        />
      </main>
    );
  if (me === null)
    return (
      <main class="narrow">
        <Login onIn={look} />
      </main>
    );
  const out = () =>
    post("logout").finally(() => {
      setCsrf("");
      setMe(null);
    });
  return (
    <>
      <a
        class="skip"
        href="#content"
        onClick={(e) => {
          e.preventDefault();
          document.querySelector<HTMLElement>("main h1")?.focus();
        }}
      >
        {text.skip}
      </a>
      <Header place={place} me={me} onOut={out} />
      <Messages />
      <main id="content">
        <Content place={place} me={me} />
      </main>
      <footer>
        {text.product} {me.version}
      </footer>
    </>
  );
}
