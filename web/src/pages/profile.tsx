// The profile of a domain or a user, with its Relay tab.
import { useEffect, useState } from "preact/hooks";
import { Effective, Me, Profile as Data, query, Relays, useApi } from "../api";
import { to } from "../router";
import { text } from "../text";
import {
  Badge,
  Check,
  Field,
  Form,
  Loaded,
  Page,
  showNewer,
  Trouble,
  useDraft,
  useId,
  useLoad,
  useParser,
  useTell,
  words,
} from "../ui";

type Kind = "domain" | "user";

/** The daemon's own parser, asked while something is typed. */
function useValidation(kind: string, value: string, original: string) {
  const problemOf = useParser();
  const [state, set] = useState({ problem: "", good: "" });
  useEffect(() => {
    set({ problem: "", good: "" });
    if (value === "" || value === original) return;
    let stale = false;
    const timer = setTimeout(() => {
      problemOf(kind, value).then(
        (problem) => !stale && set({ problem, good: problem ? "" : text.relay.good }),
        () => undefined,
      );
    }, 200);
    return () => {
      stale = true;
      clearTimeout(timer);
    };
  }, [kind, value, original, problemOf]);
  return state;
}

function Samples({
  samples,
  onUse,
  disabled,
}: {
  samples: string[][];
  onUse: (v: string) => void;
  disabled?: boolean;
}) {
  return (
    <details class="samples">
      <summary>{text.relay.samples}</summary>
      <dl>
        {samples.map(([value, meaning]) => (
          <div key={value}>
            <dt>
              <code>{value}</code>{" "}
              <button
                type="button"
                class="link"
                disabled={disabled}
                aria-label={`${text.relay.use} ${value}`}
                onClick={() => onUse(value)}
              >
                {text.relay.use}
              </button>
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
    </details>
  );
}

function rule(account: string, e: Effective): string {
  const own = account.includes("@") ? account : `@${account}`;
  if (e.key === own) return text.relay.own;
  if (e.key) return text.relay.inherits(e.key);
  if (e.rule === "relayhost") return text.relay.rules.relayhost;
  if (!e.rule || e.rule === "the recipient's domain") return text.relay.rules.direct;
  return text.relay.byRule(e.rule);
}

/** What the daemon says it would do. */
function Happens({
  account,
  dirty,
  turn,
  records,
}: {
  account: string;
  dirty: boolean;
  turn: number;
  records: string[];
}) {
  const e = useLoad<Effective>(`effective?${query({ account })}`, turn);
  const sender = account.includes("@") ? account : `postmaster@${account}`;
  return (
    <aside class="box info" aria-labelledby="happens">
      <h2 id="happens">{text.relay.happens}</h2>
      <div aria-live="polite">
        <Loaded of={e}>
          {(d) => {
            const said = rule(account, d);
            const direct = said === text.relay.rules.direct;
            return (
              <>
                <p>
                  <strong>{account}</strong> {said}
                  {!direct && d.next_hop && (
                    <>
                      : <code>{d.next_hop}</code>
                    </>
                  )}
                  {!direct && d.credentials && <> {text.relay.as(d.credentials)}</>}.
                </p>
                {!direct && d.tls && (
                  <p class="quiet">
                    {text.relay.tls}: {d.tls}
                  </p>
                )}
                {d.problem && (
                  <p class="box bad">
                    {text.relay.problem}: {d.problem}
                  </p>
                )}
              </>
            );
          }}
        </Loaded>
      </div>
      {dirty && <p class="quiet">{text.relay.changed}</p>}
      {records.length > 0 && (
        <p class="quiet">
          {text.relay.records}{" "}
          {records.map((r, i) => (
            <span key={r}>
              {i > 0 && ", "}
              <a href={to("relay", r)}>{r}</a>
            </span>
          ))}
        </p>
      )}
      <p class="row">
        <a class="button" href={`#/test?${query({ kind: "test", sender })}`}>
          {text.relay.test}
        </a>
        <a class="button" href={`#/test?${query({ kind: "explain", sender })}`}>
          {text.relay.explain}
        </a>
      </p>
    </aside>
  );
}

/** Names of relay records, to choose from. */
function Known({ id }: { id: string }) {
  const list = useLoad<Relays>("relays");
  return (
    <datalist id={id}>
      {list.data?.records.map((r) => (
        <option key={r.name} value={r.nexthop}>
          {r.name}
        </option>
      ))}
    </datalist>
  );
}

interface Values {
  outgoing: string;
  incoming: string;
  unverified: boolean;
  backup: boolean;
  primary: string;
}

function valuesOf(d: Data): Values {
  const backup = d.is_backupmx === "yes" && (d.transport ?? "").startsWith("relay:");
  return {
    outgoing: d.outboundRelay ?? "",
    incoming: d.transport ?? "",
    unverified: d.is_backupmx === "yes",
    backup,
    primary: d.primarymx ?? "",
  };
}

/** What has changed, as the API takes it. */
function changes(kind: Kind, had: Values, v: Values): Record<string, string> {
  const out: Record<string, string> = {};
  if (v.outgoing !== had.outgoing) out.outboundRelay = v.outgoing.trim();
  if (kind === "domain" && v.backup) {
    if (!had.backup) out.is_backupmx = "yes";
    if (v.primary !== had.primary || !had.backup) out.primarymx = v.primary.trim();
  } else if (kind === "domain") {
    if (had.backup || v.unverified !== had.unverified) out.is_backupmx = v.unverified && !had.backup ? "yes" : "no";
  }
  if (!v.backup && v.incoming !== had.incoming) out.transport = v.incoming.trim();
  return out;
}

function BackupMx({ v, set, usual }: { v: Values; set: (v: Values) => void; usual: string }) {
  const t = text.relay;
  return (
    <fieldset>
      <legend>{t.backupTitle}</legend>
      <Check
        label={t.markBackup}
        checked={v.backup}
        onChange={(backup) => set({ ...v, backup, unverified: backup, incoming: backup ? v.incoming : usual })}
      />
      {v.backup && (
        <div class="pair">
          <Field label={t.primary} value={v.primary} onInput={(primary) => set({ ...v, primary })} />
          <Samples samples={t.samplesMx} onUse={(primary) => set({ ...v, primary })} />
        </div>
      )}
    </fieldset>
  );
}

function RelayTab({
  kind,
  name,
  data,
  me,
  again,
}: {
  kind: Kind;
  name: string;
  data: Data;
  me: Me;
  again: () => Promise<void>;
}) {
  const t = text.relay;
  const had = valuesOf(data);
  const [v, set, end] = useDraft(data, valuesOf);
  const [api, tell] = [useApi(), useTell()];
  const [error, setError] = useState("");
  const [turn, setTurn] = useState(0);
  const known = useId();
  const out = useValidation("outboundRelay", v.outgoing, had.outgoing);
  const inc = useValidation("transport", v.incoming, had.incoming);
  const change = changes(kind, had, v);
  const dirty = Object.keys(change).length > 0;
  const usual = data.default_transport ?? "";
  const path = `${kind}/${encodeURIComponent(name)}`;
  const save = () =>
    api.put(path, { ...change, version: data.version }).then(
      () => {
        setError("");
        tell(text.saved);
        setTurn(turn + 1);
        return again().then(() => end(v));
      },
      (e) => {
        setError(words(e));
        return showNewer(api, path, data.version, e, () => again().then(() => end(v)));
      },
    );
  return (
    <div class="columns">
      <Form class="card" label={text.profile.relay} onSubmit={save}>
        <Trouble what={error} />
        <div class="pair">
          <Field
            label={t.outgoing}
            value={v.outgoing}
            onInput={(outgoing) => set({ ...v, outgoing })}
            list={me.global ? known : undefined}
            problem={out.problem}
            good={out.good}
            hint={kind === "domain" ? t.outgoingEmptyDomain : t.outgoingEmptyUser}
          />
          <Samples samples={t.samplesOut} onUse={(outgoing) => set({ ...v, outgoing })} />
        </div>
        {me.global && <Known id={known} />}
        <hr />
        {v.backup && <p class="box info">{t.isBackup}</p>}
        <div class="pair">
          <Field
            label={t.incoming}
            value={v.incoming}
            disabled={v.backup}
            onInput={(incoming) => set({ ...v, incoming })}
            problem={inc.problem}
            good={inc.good}
            hint={kind === "domain" ? t.incomingEmptyDomain(usual) : t.incomingEmptyUser(data.domain_transport ?? "")}
          />
          <Samples samples={t.samplesIn} disabled={v.backup} onUse={(incoming) => set({ ...v, incoming })} />
        </div>
        {kind === "domain" && (
          <Check
            label={t.unverified}
            checked={v.unverified}
            disabled={v.backup}
            onChange={(unverified) => set({ ...v, unverified })}
          />
        )}
        {kind === "domain" && <BackupMx v={v} set={set} usual={had.backup ? usual : had.incoming} />}
        <button class="primary" disabled={!dirty || !!out.problem || !!inc.problem}>
          {text.save}
        </button>
      </Form>
      <Happens account={name} dirty={dirty} turn={turn} records={data.records ?? []} />
    </div>
  );
}

function General({ data }: { data: Data }) {
  return (
    <dl class="facts card">
      <div>
        <dt>{text.profile.name}</dt>
        <dd>{data.title || "–"}</dd>
      </div>
      <div>
        <dt>{text.profile.status}</dt>
        <dd>
          <Badge kind={data.accountStatus === "active" ? "good" : "warn"}>
            {data.accountStatus === "active" ? text.active : text.disabled}
          </Badge>
        </dd>
      </div>
    </dl>
  );
}

export function Profile({ kind, name, tab, me }: { kind: Kind; name: string; tab?: string; me: Me }) {
  const data = useLoad<Data>(`${kind}/${encodeURIComponent(name)}`);
  const domain = name.slice(name.indexOf("@") + 1);
  const at = tab === "general" ? "general" : "relay";
  return (
    <Page
      title={kind === "domain" ? text.profile.domain(name) : text.profile.user(name)}
      path={
        <>
          <a href={to("domains")}>{text.profile.allDomains}</a>
          {" / "}
          {kind === "user" && (
            <>
              <a href={to("domain", domain, "relay")}>{domain}</a>
              {" / "}
            </>
          )}
          <a href={to("users", domain)}>{text.domains.users}</a>
        </>
      }
    >
      <nav class="tabs" aria-label={text.profile.tabs}>
        <a href={to(kind, name, "general")} aria-current={at === "general" ? "page" : undefined}>
          {text.profile.general}
        </a>
        {data.data?.relay_tab !== false && (
          <a href={to(kind, name, "relay")} aria-current={at === "relay" ? "page" : undefined}>
            {text.profile.relay}
          </a>
        )}
      </nav>
      <Loaded of={data}>
        {(d) =>
          at === "general" ? (
            <General data={d} />
          ) : d.relay_tab ? (
            <RelayTab kind={kind} name={name} data={d} me={me} again={data.again} />
          ) : (
            <p class="box info">{text.profile.hidden}</p>
          )
        }
      </Loaded>
    </Page>
  );
}
