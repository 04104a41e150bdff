import { useEffect, useRef, useState } from "preact/hooks";
import { Dashboard as Data, Finding, Findings, Health } from "../api";
import { to } from "../router";
import { text } from "../text";
import { Badge, Loaded, Page, Select, Table, Time, useLoad, when } from "../ui";

const t = text.dashboard;
const spans: Record<string, number> = { hour: 3600, day: 86400, week: 7 * 86400, month: 31 * 86400 };
const series = ["sent", "deferred", "bounced", "waiting"] as const;

/** uPlot comes when there is something to draw: the first view does without it. */
function Chart({ history, span }: { history: Data["history"]; span: number }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    let gone = false,
      clear = () => undefined as void;
    import("../chart").then(({ draw }) => {
      if (!gone && box.current) clear = draw(box.current, history, span);
    });
    return () => {
      gone = true;
      clear();
    };
  }, [history, span]);
  return <div ref={box} class="chart" role="img" aria-label={t.chartLabel} />;
}

function History({ data, range, setRange }: { data: Data; range: string; setRange: (r: string) => void }) {
  const h = data.history;
  return (
    <section class="card">
      <div class="head">
        <h2>{t.history}</h2>
        <Select label={t.range} value={range} onChange={setRange} options={Object.entries(t.ranges)} />
      </div>
      {h.at.length === 0 ? (
        <p class="quiet">{t.noHistory}</p>
      ) : (
        <>
          <Chart history={h} span={spans[range]} />
          <details>
            <summary>{t.numbers}</summary>
            <Table
              caption={t.history}
              head={
                <>
                  <th scope="col">{t.time}</th>
                  {series.map((s) => (
                    <th key={s} scope="col">
                      {t[s]}
                    </th>
                  ))}
                </>
              }
            >
              {h.at.map((at, i) => (
                <tr key={at}>
                  <th scope="row">{when(at)}</th>
                  {series.map((s) => (
                    <td key={s}>{h[s][i]}</td>
                  ))}
                </tr>
              ))}
            </Table>
          </details>
        </>
      )}
    </section>
  );
}

function hopName(h: Health) {
  if (h.record) return <a href={to("relay", h.record)}>{h.record}</a>;
  return h.nexthop ? <code>{h.nexthop}</code> : <>{text.relays.direct}</>;
}

function Busiest({ data }: { data: Data }) {
  const heads = (
    <>
      <th scope="col">{t.sent}</th>
      <th scope="col">{t.deferred}</th>
      <th scope="col">{t.bounced}</th>
    </>
  );
  return (
    <div class="columns even">
      <section class="card">
        <h2>{t.senders}</h2>
        <Table
          caption={t.senders}
          head={
            <>
              <th scope="col">{t.sender}</th>
              {heads}
            </>
          }
        >
          {data.senders.slice(0, 10).map((s) => (
            <tr key={s.sender}>
              <th scope="row">{s.sender || text.queue.bounce}</th>
              <td>{s.sent}</td>
              <td>{s.deferred}</td>
              <td>{s.bounced}</td>
            </tr>
          ))}
        </Table>
      </section>
      <section class="card">
        <h2>{t.relays}</h2>
        <Table
          caption={t.relays}
          head={
            <>
              <th scope="col">{t.relay}</th>
              {heads}
            </>
          }
        >
          {data.relays.map((r) => (
            <tr key={`${r.nexthop} ${r.record}`}>
              <th scope="row">{hopName(r)}</th>
              <td>{r.sent}</td>
              <td>{r.deferred}</td>
              <td>{r.bounced}</td>
            </tr>
          ))}
        </Table>
      </section>
    </div>
  );
}

function FindingItem({ f }: { f: Finding }) {
  return (
    <li>
      <Badge kind={f.level === "error" ? "bad" : f.level === "warning" ? "warn" : "plain"}>{f.level}</Badge>{" "}
      <span class="wrap">{f.text}</span>
      {f.file && (
        <span class="quiet small wrap">
          {" "}
          {f.file}
          {f.line > 0 && `, ${t.line(f.line)}`}
        </span>
      )}
    </li>
  );
}

function Warnings() {
  const check = useLoad<Findings>("check");
  return (
    <section class="card">
      <h2>{t.warnings}</h2>
      <Loaded of={check}>
        {({ findings }) => {
          const serious = findings.filter((f) => f.level !== "note"),
            notes = findings.filter((f) => f.level === "note");
          return (
            <>
              {serious.length === 0 ? (
                <p>{t.clean}</p>
              ) : (
                <ul class="plain">
                  {serious.map((f, i) => (
                    <FindingItem key={i} f={f} />
                  ))}
                </ul>
              )}
              {notes.length > 0 && (
                <details>
                  <summary>{t.showNotes(notes.length)}</summary>
                  <ul class="plain">
                    {notes.map((f, i) => (
                      <FindingItem key={i} f={f} />
                    ))}
                  </ul>
                </details>
              )}
            </>
          );
        }}
      </Loaded>
    </section>
  );
}

function Numbers({ data }: { data: Data }) {
  const r = data.now.results,
    waiting = data.now.active + data.now.deferred + data.now.hold;
  return (
    <div class="numbers row">
      {(["sent", "deferred", "bounced"] as const).map((s) => (
        <div key={s} class="number">
          <strong>{r[s]}</strong> {t[s]}
        </div>
      ))}
      <a class="number" href="#/queue">
        <strong>{waiting}</strong> {t.waiting}
      </a>
      <span class="quiet">{t.since(when(r.since))}</span>
    </div>
  );
}

export function Dashboard() {
  const [range, setRange] = useState("hour");
  const data = useLoad<Data>(`dashboard?range=${range}`);
  useEffect(() => {
    const timer = setInterval(data.again, 30000);
    return () => clearInterval(timer);
  }, [data.again]);
  return (
    <Page title={t.title}>
      <Loaded of={data}>
        {(d) => (
          <>
            <Numbers data={d} />
            <History data={d} range={range} setRange={setRange} />
            <Busiest data={d} />
            <div class="columns even">
              <Warnings />
              <section class="card">
                <h2>{t.oldest}</h2>
                {d.now.oldest ? (
                  <p>
                    <code>{d.now.oldest.queue_id}</code> {d.now.oldest.sender || text.queue.bounce},{" "}
                    <Time at={d.now.oldest.arrival_time} />
                  </p>
                ) : (
                  <p>{text.none}</p>
                )}
                <h2>{t.certificates}</h2>
                {d.certificates.length === 0 ? (
                  <p>{t.noCertificates}</p>
                ) : (
                  <ul class="plain">
                    {d.certificates.map((c) => (
                      <li key={c.relay + c.record}>
                        <strong>{c.record || c.relay}</strong> {t.validUntil(when(c.until))}
                      </li>
                    ))}
                  </ul>
                )}
              </section>
            </div>
          </>
        )}
      </Loaded>
    </Page>
  );
}
