// Relay records: the list with their health, and the form of one.
import { useState } from "preact/hooks";
import { Health, Me, Preset, query, Relay, Relays as List, useApi } from "../api";
import { go, to } from "../router";
import { text } from "../text";
import {
  Badge,
  Confirm,
  Field,
  Form,
  Loaded,
  Page,
  Select,
  showNewer,
  Table,
  Time,
  Trouble,
  useDraft,
  useLoad,
  useParser,
  useTell,
  words,
} from "../ui";

const t = text.relays;

export function State({ health }: { health: Health }) {
  if (health.resting_until) return <Badge kind="bad">{t.state.resting}</Badge>;
  if ((health.last_failure ?? 0) > (health.last_success ?? 0)) return <Badge kind="bad">{t.state.failing}</Badge>;
  if (health.last_success) return <Badge kind="good">{t.state.good}</Badge>;
  return <Badge kind="plain">{t.state.idle}</Badge>;
}

/** Last success, last error in plain words, until when it rests, what waits. */
export function HealthFacts({ health }: { health: Health }) {
  return (
    <dl class="facts">
      <div>
        <dt>{t.lastSuccess}</dt>
        <dd>
          <Time at={health.last_success} />
        </dd>
      </div>
      <div>
        <dt>{t.lastError}</dt>
        <dd>
          <Time at={health.last_failure} />
          {health.error && (
            <>
              {" "}
              <span class="wrap">{health.error}</span>
            </>
          )}
        </dd>
      </div>
      {health.advice && (
        <div>
          <dt>{t.meaning}</dt>
          <dd>
            <strong>{health.advice}</strong>
          </dd>
        </div>
      )}
      {health.resting_until && (
        <div>
          <dt>{t.restingUntil}</dt>
          <dd>
            <Time at={health.resting_until} />
          </dd>
        </div>
      )}
      <div>
        <dt>{t.waiting}</dt>
        <dd>{health.waiting ?? 0}</dd>
      </div>
      <div>
        <dt>
          {t.sent} / {t.deferred} / {t.bounced}
        </dt>
        <dd>
          {health.sent ?? 0} / {health.deferred ?? 0} / {health.bounced ?? 0}
        </dd>
      </div>
      {health.certificate_until && (
        <div>
          <dt>{t.certificate}</dt>
          <dd>
            <Time at={health.certificate_until} />
          </dd>
        </div>
      )}
    </dl>
  );
}

function waitingLink(h: Health, me: Me) {
  if (!me.global) return <>{h.waiting ?? 0}</>;
  return h.waiting ? <a href={`#/queue?${query({ relay: h.nexthop, record: h.record })}`}>{h.waiting}</a> : <>0</>;
}

export function Relays({ me }: { me: Me }) {
  const list = useLoad<List>("relays");
  return (
    <Page
      title={t.title}
      lead={me.global ? t.lead : `${t.lead} ${t.leadOwn}`}
      side={
        <a class="button primary" href="#/relay">
          {t.add}
        </a>
      }
    >
      <Loaded of={list}>
        {(data) => (
          <>
            {data.records.length === 0 ? (
              <p class="quiet">{t.empty}</p>
            ) : (
              <Table
                class="cards plainhead"
                caption={t.title}
                head={
                  <>
                    <th scope="col">{t.name}</th>
                    <th scope="col">{t.hostsShort}</th>
                    <th scope="col" class="wide">
                      {text.relay.tls}
                    </th>
                    <th scope="col" class="wide">
                      {t.account}
                    </th>
                    <th scope="col" class="wide">
                      {t.usedBy}
                    </th>
                    <th scope="col">{t.health}</th>
                    <th scope="col" class="wide">
                      {t.waiting}
                    </th>
                  </>
                }
              >
                {data.records.map((r) => (
                  <tr key={r.name}>
                    <th scope="row">
                      <a href={to("relay", r.name)}>{r.name}</a>
                      {r.owner && <div class="small quiet">{t.ownerIs(r.owner)}</div>}
                      {r.orphan && <div class="small">{t.ownerGone}</div>}
                    </th>
                    <td>
                      <code>{r.hosts}</code>
                    </td>
                    <td class="wide" data-label={text.relay.tls}>
                      {r.tls}
                    </td>
                    <td class="wide" data-label={t.account}>
                      {r.user || <span class="quiet">{t.noAccount}</span>}
                    </td>
                    <td class="wide" data-label={t.usedBy}>
                      {t.accounts(r.used_by ?? 0)}
                    </td>
                    <td>
                      <State health={r.health} /> {r.health.advice && <span class="small">{r.health.advice}</span>}
                    </td>
                    <td class="wide" data-label={t.waiting}>
                      {waitingLink(r.health, me)}
                    </td>
                  </tr>
                ))}
              </Table>
            )}
            {data.others.length > 0 && (
              <section>
                <h2>{t.others}</h2>
                <p class="lead">{t.othersLead}</p>
                <Table
                  caption={t.others}
                  head={
                    <>
                      <th scope="col">{t.hostsShort}</th>
                      <th scope="col">{t.health}</th>
                      <th scope="col">{t.lastError}</th>
                      <th scope="col" class="wide">
                        {t.waiting}
                      </th>
                    </>
                  }
                >
                  {data.others.map((h) => (
                    <tr key={h.nexthop}>
                      <th scope="row">{h.nexthop ? <code>{h.nexthop}</code> : t.direct}</th>
                      <td>
                        <State health={h} />
                      </td>
                      <td class="small">{h.advice ?? h.error ?? text.none}</td>
                      <td class="wide">{waitingLink(h, me)}</td>
                    </tr>
                  ))}
                </Table>
              </section>
            )}
          </>
        )}
      </Loaded>
    </Page>
  );
}

function HostList({ hosts, set }: { hosts: string[]; set: (h: string[]) => void }) {
  const problemOf = useParser();
  const [problems, setProblems] = useState<Record<string, string>>({});
  const check = (value: string) =>
    value &&
    problemOf("hosts", value).then(
      (problem) => setProblems((p) => ({ ...p, [value]: problem })),
      () => undefined,
    );
  const change = (i: number, v: string) => {
    set(hosts.map((h, k) => (k === i ? v : h)));
    check(v);
  };
  return (
    <fieldset>
      <legend>{t.hosts}</legend>
      {hosts.map((h, i) => (
        <div class="host" key={i}>
          <Field
            label={t.host(i + 1)}
            value={h}
            onInput={(v) => change(i, v)}
            problem={problems[h]}
            required={i === 0}
          />
          {i > 0 && (
            <button
              type="button"
              aria-label={t.upHost(i + 1)}
              onClick={() => set(hosts.map((x, k) => (k === i - 1 ? h : k === i ? hosts[i - 1] : x)))}
            >
              ↑
            </button>
          )}
          {hosts.length > 1 && (
            <button type="button" aria-label={t.removeHost(i + 1)} onClick={() => set(hosts.filter((_, k) => k !== i))}>
              ×
            </button>
          )}
        </div>
      ))}
      <button type="button" class="link" onClick={() => set([...hosts, ""])}>
        {t.addHost}
      </button>
    </fieldset>
  );
}

interface Draft {
  name: string;
  hosts: string[];
  tls: string;
  mechanisms: string;
  user: string;
  password: string;
  nexthop: string;
  only: string;
  owner: string;
}

function draftOf(r?: Relay): Draft {
  return r
    ? {
        name: r.name,
        hosts: r.hosts.split(/[,\s]+/).filter(Boolean),
        tls: r.tls,
        mechanisms: r.mechanisms,
        user: r.user,
        password: "",
        nexthop: r.nexthop === r.hosts.toLowerCase() ? "" : r.nexthop,
        only: r.for,
        owner: r.owner,
      }
    : {
        name: "",
        hosts: [""],
        tls: "verify",
        mechanisms: "",
        user: "",
        password: "",
        nexthop: "",
        only: "",
        owner: "",
      };
}

function Presets({ use }: { use: (p: Preset) => void }) {
  const list = useLoad<Preset[]>("presets");
  const [id, set] = useState("");
  const one = list.data?.find((p) => p.id === id);
  return (
    <>
      <Select
        label={t.preset}
        value={id}
        options={[["", "–"], ...(list.data ?? []).map((p): [string, string] => [p.id, p.name])]}
        onChange={(v) => {
          set(v);
          const p = list.data?.find((x) => x.id === v);
          if (p) use(p);
        }}
      />
      {one && (
        <p class="box info" aria-live="polite">
          {one.note}
        </p>
      )}
    </>
  );
}

function Editor({
  me,
  relay,
  done,
  again,
}: {
  me: Me;
  relay?: Relay;
  done: (name: string) => Promise<void> | void;
  again?: () => Promise<void>;
}) {
  const [d, set, end] = useDraft(relay, draftOf);
  const [api, tell] = [useApi(), useTell()];
  const [hint, setHint] = useState<Preset | null>(null);
  const [error, setError] = useState("");
  const hosts = d.hosts
    .map((h) => h.trim())
    .filter(Boolean)
    .join(", ");
  const save = () => {
    const body: Record<string, string> = {
      hosts,
      tls: d.tls,
      mechanisms: d.mechanisms,
      user: d.user,
      nexthop: d.nexthop.trim(),
    };
    if (relay) body.version = relay.version;
    if (relay || d.only.trim()) body.for = d.only.trim();
    if (relay ? me.global && d.owner !== relay.owner : d.owner.trim()) body.owner = d.owner.trim();
    if (d.password) body.password = d.password;
    const path = `relay/${encodeURIComponent(d.name)}`;
    return api.put(path + (relay ? "" : "?new=yes"), body).then(
      () => {
        setError("");
        tell(t.created);
        return Promise.resolve(done(d.name)).then(() => end(d));
      },
      (e) => {
        setError(words(e));
        if (relay && again) return showNewer(api, path, relay.version, e, () => again().then(() => end(d)));
      },
    );
  };
  return (
    <Form class="card" label={relay ? t.edit : t.new} onSubmit={save}>
      <Trouble what={error} />
      {!relay && (
        <Presets
          use={(p) => {
            setHint(p);
            set({
              ...d,
              name: d.name || (p.id === "plain" ? "" : p.id),
              hosts: [p.hosts],
              tls: p.tls,
              mechanisms: p.mechanisms,
            });
          }}
        />
      )}
      <Field label={t.name} value={d.name} onInput={(name) => set({ ...d, name })} disabled={!!relay} required />
      {!me.global && (
        <Field
          label={t.owner}
          value={d.owner}
          onInput={(owner) => set({ ...d, owner })}
          disabled={!!relay}
          hint={t.ownerOwn}
          required
        />
      )}
      <HostList hosts={d.hosts} set={(h) => set({ ...d, hosts: h })} />
      <Select label={t.tls} value={d.tls} onChange={(tls) => set({ ...d, tls })} options={Object.entries(t.tlsModes)} />
      <Field label={t.account} value={d.user} onInput={(user) => set({ ...d, user })} hint={hint?.user} />
      <Field
        label={t.password}
        type="password"
        autocomplete="new-password"
        value={d.password}
        onInput={(password) => set({ ...d, password })}
        placeholder={relay?.password_set ? t.masked : undefined}
        hint={relay?.password_set ? t.passwordKeep : hint ? `${hint.password}. ${t.passwordNew}` : t.passwordNew}
      />
      <details>
        <summary>{text.more}</summary>
        <Field
          label={t.mechanisms}
          value={d.mechanisms}
          onInput={(mechanisms) => set({ ...d, mechanisms })}
          hint={t.mechanismsHint}
        />
        <Field label={t.nexthop} value={d.nexthop} onInput={(nexthop) => set({ ...d, nexthop })} hint={t.nexthopHint} />
        <Field
          label={t.only}
          value={d.only}
          onInput={(only) => set({ ...d, only })}
          hint={me.global ? t.onlyHint : t.onlyOwn}
        />
        {me.global && (
          <Field label={t.owner} value={d.owner} onInput={(owner) => set({ ...d, owner })} hint={t.ownerHint} />
        )}
      </details>
      <button class="primary">{text.save}</button>
    </Form>
  );
}

function Users({ relay }: { relay: Relay }) {
  const users = relay.users ?? [];
  return (
    <section class="card">
      <h2>{t.usedBy}</h2>
      {users.length === 0 && <p class="quiet">{text.nobody}</p>}
      <ul class="plain">
        {users.map((u) => (
          <li key={u}>
            <a href={u.startsWith("@") ? to("domain", u.slice(1), "relay") : to("user", u, "relay")}>{u}</a>
          </li>
        ))}
      </ul>
      {relay.more_users && <p class="quiet">{t.moreUsers}</p>}
    </section>
  );
}

/** Accounts that are gone, or never were: a record stays for them. */
function Unknown({ relay }: { relay: Relay }) {
  const unknown = relay.unknown ?? [];
  if (unknown.length === 0) return null;
  return (
    <section class="card" aria-labelledby="unknown">
      <h2 id="unknown">{t.unknown}</h2>
      <ul class="plain">
        {unknown.map((u) => (
          <li key={u} class="wrap">
            {u}
          </li>
        ))}
      </ul>
      <p class="box info">{t.unknownThen}</p>
    </section>
  );
}

function One({ relay, me, again }: { relay: Relay; me: Me; again: () => Promise<void> }) {
  const [api, tell] = [useApi(), useTell()];
  const [sure, ask] = useState(false);
  const remove = () =>
    api.del(`relay/${encodeURIComponent(relay.name)}`).then(
      () => {
        tell(t.gone);
        go("#/relays");
      },
      (e) => {
        ask(false);
        tell(words(e), true);
      },
    );
  const user = relay.users?.find((u) => !u.startsWith("@"));
  const named = relay.for.split(",").find((a) => a.includes("@"));
  const past = me.global ? relay.nexthop : undefined; // past all rules is for who administers the server
  const sender = (named || user || relay.users?.[0] || "").trim().replace(/^@/, "postmaster@");
  return (
    <div class="columns">
      <div>
        <Editor me={me} relay={relay} done={again} again={again} />
        <p>
          <button type="button" class="danger" onClick={() => ask(true)}>
            {t.delete}
          </button>
        </p>
        {sure && <Confirm question={t.deleteSure(relay.name)} yes={t.delete} onYes={remove} onNo={() => ask(false)} />}
      </div>
      <div>
        <section class="card">
          <h2>
            {t.health} <State health={relay.health} />
          </h2>
          <HealthFacts health={relay.health} />
          <p class="row">
            <a class="button" href={`#/test?${query({ kind: "test", sender, relay: past })}`}>
              {text.relay.test}
            </a>
            <a class="button" href={`#/test?${query({ kind: "explain", sender, relay: past })}`}>
              {text.relay.explain}
            </a>
          </p>
        </section>
        <Users relay={relay} />
        <Unknown relay={relay} />
      </div>
    </div>
  );
}

export function RelayForm({ name, me }: { name?: string; me: Me }) {
  const data = useLoad<Relay>(name ? `relay/${encodeURIComponent(name)}` : null);
  return (
    <Page title={name ?? t.new} path={<a href="#/relays">{t.title}</a>}>
      {name ? (
        <Loaded of={data}>{(r) => <One relay={r} me={me} again={data.again} />}</Loaded>
      ) : (
        <div class="narrow">
          <Editor me={me} done={(n) => go(to("relay", n))} />
        </div>
      )}
    </Page>
  );
}
