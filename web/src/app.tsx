// Who is signed in, and which page is shown.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Api, ApiContext, Failure, Me } from "./api";
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
import { Form, Messages, Whole } from "./ui";

function Content({ place, me }: { place: Place; me: Me }) {
  const [what, a, b] = place.parts;
  if (what === "domain" && a) return <Profile kind="domain" name={a} tab={b} me={me} />;
  if (what === "user" && a) return <Profile kind="user" name={a} tab={b} me={me} />;
  if (what === "users" && a) return <Accounts domain={a} args={place.args} />;
  if (what === "search") return <Search q={place.args.get("q") ?? ""} />;
  if (what === "test") return <NewRun args={place.args} me={me} />;
  if (what === "run" && a) return <Result id={a} />;
  if (what === "tokens") return <Tokens me={me} />;
  if (what === "relays") return <Relays me={me} />;
  if (what === "relay") return <RelayForm name={a} me={me} />;
  if (me.global) {
    if (what === "queue") return <Queue args={place.args} />;
    if (what === "log") return <Log args={place.args} />;
    if (what !== "domains") return <Dashboard />;
  }
  return <Accounts args={place.args} />;
}

/** stays: signing out has failed. */
type Shown = { place: Place; me: Me; stays: boolean; onOut: () => void };

function Header({ place, me, stays, onOut }: Shown) {
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
    : ["domains", "relays", "test", "tokens"];
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
        <span role="alert">{stays && text.login.stays}</span>
      </div>
    </header>
  );
}

/** The page of whoever is signed in. */
function Inside({ place, me, stays, onOut }: Shown) {
  const skip = (e: Event) => {
    e.preventDefault();
    document.querySelector<HTMLElement>("main h1")?.focus();
  };
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        {text.skip}
      </a>
      <Header place={place} me={me} stays={stays} onOut={onOut} />
      <Messages>
        <main id="content">
          <Content key={place.hash} place={place} me={me} />
        </main>
      </Messages>
      <footer>
        {text.product} {me.version}
      </footer>
    </>
  );
}

/** me: undefined until the server has said who is signed in, null if nobody is. */
export function App() {
  const place = usePlace();
  const [me, setMe] = useState<Me | null | undefined>(undefined);
  const csrf = me?.csrf ?? "";
  const api = useMemo(() => new Api(csrf, () => setMe(null)), [csrf]);
  const [stays, setStays] = useState(false);
  const look = () =>
    api.get<Me>("session").then(setMe, (e: Failure) => setMe((was) => (e.status === 401 ? null : (was ?? null))));
  useEffect(() => void look(), []);
  const out = async () => {
    const failed = await api.post("logout").then(
      () => false,
      (e: Failure) => e.status !== 401,
    );
    setStays(failed);
    if (failed)
      look(); // another tab may have begun another session
    else setMe(null);
  };
  const welcome = place.parts[0] === "welcome" ? place.parts[1] : undefined;
  const welcomed = () => {
    go(to("domains"));
    look();
  };
  let shown = <p class="quiet">{text.loading}</p>;
  if (me !== undefined && welcome)
    shown = (
      <main class="narrow">
        <Welcome token={welcome} onIn={welcomed} />
      </main>
    );
  else if (me === null)
    shown = (
      <main class="narrow">
        <Login onIn={look} />
      </main>
    );
  else if (me) shown = <Inside place={place} me={me} stays={stays} onOut={out} />;
  return (
    <ApiContext.Provider value={api}>
      <Whole>{shown}</Whole>
    </ApiContext.Provider>
  );
}
