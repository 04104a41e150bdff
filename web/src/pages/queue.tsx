// The mail queue, live.
import { useEffect, useState } from "preact/hooks";
import { Count, Counts, Message, Messages, useApi } from "../api";
import { go } from "../router";
import { text } from "../text";
import {
  Badge,
  Confirm,
  Field,
  Form,
  Loaded,
  Page,
  Select,
  size,
  Table,
  Time,
  Trouble,
  useLatest,
  useLoad,
  useTell,
  words,
} from "../ui";

const t = text.queue;
const names = ["queue", "relay", "record", "sender", "recipient", "reason"] as const;
type Filter = Partial<Record<(typeof names)[number], string>>;

function filterOf(args: URLSearchParams): Filter {
  const f: Filter = {};
  for (const n of names) if (args.has(n)) f[n] = args.get(n)!;
  return f;
}

/** relay may be empty: direct delivery. */
function link(f: Filter, after?: string): string {
  const q = new URLSearchParams();
  for (const n of names) if (f[n] !== undefined && (f[n] !== "" || n === "relay" || n === "record")) q.set(n, f[n]!);
  if (after) q.set("after", after);
  return `#/queue?${q}`;
}

/** Counts as they change; changed is called with every change after the first counts. */
function useCounts(changed: () => void) {
  const latest = useLatest(changed);
  const [counts, set] = useState<Counts | null>(null);
  const [down, setDown] = useState(false);
  useEffect(() => {
    let source: EventSource,
      again: number | undefined,
      first = true;
    const open = () => {
      source = new EventSource("api/queue/counts");
      source.addEventListener("counts", (e) => {
        set(JSON.parse(e.data));
        setDown(false);
        if (!first) latest.current();
        first = false;
      });
      source.addEventListener("down", () => setDown(true));
      source.addEventListener("error", () => {
        if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
        latest.current(); // which asks who is signed in
        again = setTimeout(open, 5000);
      });
    };
    open();
    return () => {
      source.close();
      clearTimeout(again);
    };
  }, []);
  return { counts, down };
}

function relayName(of: { relay?: string; record?: string }): string {
  return of.record || of.relay || text.relays.direct;
}

function Overview({ counts, down }: { counts: Counts | null; down: boolean }) {
  if (down) return <Trouble what={t.down} />;
  if (!counts) return <p class="quiet">{text.loading}</p>;
  return (
    <>
      <p class="row numbers" aria-live="polite">
        {(["active", "deferred", "hold"] as const).map((q) => (
          <a key={q} class="number" href={link({ queue: q })}>
            <strong>{counts[q]}</strong> {t[q]}
          </a>
        ))}
      </p>
      {(counts.relays.length > 0 || counts.reasons.length > 0) && (
        <div class="columns even">
          <section class="card">
            <h2>{t.byRelay}</h2>
            <ul class="plain counts">
              {counts.relays.map((r) => (
                <li key={r.relay + r.record}>
                  <a href={link({ relay: r.relay, record: r.record })}>{relayName(r)}</a> <span>{r.messages}</span>
                </li>
              ))}
            </ul>
          </section>
          <section class="card">
            <h2>{t.byReason}</h2>
            <ul class="plain counts">
              {counts.reasons.map((r) => (
                <li key={r.reason}>
                  <a class="wrap" href={link({ reason: r.reason })}>
                    {r.reason}
                  </a>{" "}
                  <span>{r.messages}</span>
                </li>
              ))}
            </ul>
          </section>
        </div>
      )}
    </>
  );
}

function Filters({ filter }: { filter: Filter }) {
  const [f, set] = useState(filter);
  const states: [string, string][] = [
    ["", t.all],
    ["active", t.active],
    ["deferred", t.deferred],
    ["hold", t.hold],
  ];
  return (
    <Form class="row filter tight" label={t.filters} onSubmit={() => go(link(f))}>
      <Select
        label={t.state}
        value={f.queue ?? ""}
        options={states}
        onChange={(queue) => set({ ...f, queue: queue || undefined })}
      />
      <Field label={t.sender} value={f.sender ?? ""} onInput={(sender) => set({ ...f, sender })} />
      <Field label={t.recipient} value={f.recipient ?? ""} onInput={(recipient) => set({ ...f, recipient })} />
      <Field label={t.reason} value={f.reason ?? ""} onInput={(reason) => set({ ...f, reason })} />
      <button>{t.apply}</button>
      {Object.keys(filter).length > 0 && <a href="#/queue">{t.clear}</a>}
    </Form>
  );
}

function MessageRow({ m, chosen, choose }: { m: Message; chosen: boolean; choose: (on: boolean) => void }) {
  const why = m.recipients[0]?.delay_reason;
  return (
    <tr>
      <td>
        <input
          type="checkbox"
          aria-label={t.select(m.queue_id)}
          checked={chosen}
          onChange={(e) => choose(e.currentTarget.checked)}
        />
      </td>
      <th scope="row">
        <code>{m.queue_id}</code>{" "}
        {m.queue_name !== "deferred" && (
          <Badge kind={m.queue_name === "hold" ? "warn" : "good"}>{m.queue_name === "hold" ? t.hold : t.active}</Badge>
        )}
      </th>
      <td>{m.sender === "MAILER-DAEMON" ? t.bounce : m.sender}</td>
      <td>
        {m.recipients.slice(0, 3).map((r) => (
          <div key={r.address}>{r.address}</div>
        ))}
        {m.recipients.length > 3 && <div>+{m.recipients.length - 3}</div>}
      </td>
      <td class="small wrap">
        {m.advice && <strong>{m.advice} </strong>}
        {why}
        {m.relay !== undefined && (
          <div class="quiet">
            {t.relay} {relayName(m)}
          </div>
        )}
      </td>
      <td class="wide" data-label={t.arrived}>
        <Time at={m.arrival_time} />
        <div class="quiet small">
          {size(m.message_size)}, {t.attempts(m.attempts)}
        </div>
      </td>
      <td class="wide" data-label={t.next}>
        {m.queue_name === "deferred" ? <Time at={m.next_attempt} /> : "–"}
      </td>
    </tr>
  );
}

const actions: [string, string][] = [
  ["retry", t.retry],
  ["hold", t.holdIt],
  ["release", t.release],
  ["delete", t.delete],
];

/** done is given the messages that were chosen for an order; what is chosen while it is carried out stays chosen. */
function Actions({ chosen, filter, done }: { chosen: string[]; filter: Filter; done: (ids: string[]) => void }) {
  const [api, tell] = [useApi(), useTell()];
  const [scope, setScope] = useState("selected");
  const [sure, ask] = useState<string[] | null>(null); // chosen when the question was asked
  const act = (action: string, ids: string[]) =>
    api.post<Count>(`queue/${action}`, scope === "all" ? { all: true, ...filter } : { ids }).then(
      (r) => {
        tell(t.done(r.count));
        done(ids);
      },
      (e) => tell(words(e), true),
    );
  const idle = scope === "selected" && chosen.length === 0;
  return (
    <div class="row actions">
      <Select
        label={t.scope}
        value={scope}
        onChange={setScope}
        options={[
          ["selected", `${t.scopeSelected} (${chosen.length})`],
          ["all", t.scopeAll],
        ]}
      />
      {actions.map(([a, label]) => (
        <button
          key={a}
          type="button"
          class={a === "delete" ? "danger" : ""}
          disabled={idle}
          onClick={() => (a === "delete" ? ask(chosen) : act(a, chosen))}
        >
          {label}
        </button>
      ))}
      {sure && (
        <Confirm
          question={t.deleteSure(scope === "all" ? t.everything : t.messages(sure.length))}
          yes={t.delete}
          onYes={() => {
            ask(null);
            act("delete", sure);
          }}
          onNo={() => ask(null)}
        />
      )}
    </div>
  );
}

export function Queue({ args }: { args: URLSearchParams }) {
  const filter = filterOf(args),
    after = args.get("after") ?? "";
  const [chosen, choose] = useState<Set<string>>(new Set());
  const params = new URLSearchParams(link(filter, after).split("?")[1]);
  const list = useLoad<Messages>(`queue?${params}`);
  const { counts, down } = useCounts(list.again);
  const flip = (id: string, on: boolean) =>
    choose((c) => {
      const n = new Set(c);
      if (on) n.add(id);
      else n.delete(id);
      return n;
    });
  return (
    <Page title={t.title}>
      <Overview counts={counts} down={down} />
      <Filters filter={filter} />
      <Loaded of={list}>
        {(data) =>
          data.messages.length === 0 ? (
            <p class="quiet">{t.empty}</p>
          ) : (
            <>
              <Actions
                chosen={[...chosen].filter((id) => data.messages.some((m) => m.queue_id === id))}
                filter={filter}
                done={(ids) => {
                  choose((c) => new Set([...c].filter((id) => !ids.includes(id))));
                  list.again();
                }}
              />
              <Table
                class="cards"
                caption={t.title}
                head={
                  <>
                    <th scope="col">
                      <input
                        type="checkbox"
                        aria-label={t.selectAll}
                        checked={data.messages.every((m) => chosen.has(m.queue_id))}
                        onChange={(e) =>
                          choose(new Set(e.currentTarget.checked ? data.messages.map((m) => m.queue_id) : []))
                        }
                      />
                    </th>
                    <th scope="col">{t.id}</th>
                    <th scope="col">{t.from}</th>
                    <th scope="col">{t.to}</th>
                    <th scope="col">{t.why}</th>
                    <th scope="col" class="wide">
                      {t.arrived}
                    </th>
                    <th scope="col" class="wide">
                      {t.next}
                    </th>
                  </>
                }
              >
                {data.messages.map((m) => (
                  <MessageRow
                    key={m.queue_id}
                    m={m}
                    chosen={chosen.has(m.queue_id)}
                    choose={(on) => flip(m.queue_id, on)}
                  />
                ))}
              </Table>
              <p class="row">
                {after && <a href={link(filter)}>{text.first}</a>}
                {data.more && <a href={link(filter, data.messages[data.messages.length - 1].cursor)}>{text.more}</a>}
              </p>
            </>
          )
        }
      </Loaded>
    </Page>
  );
}
