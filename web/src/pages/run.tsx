// Test and explain: asking for it, and the result with an address of its own.
import { useEffect, useState } from "preact/hooks";
import { Asked, Me, query, Run, RunId, Step, useApi } from "../api";
import { go, to } from "../router";
import { text } from "../text";
import { Badge, Field, Form, Page, Select, Time, Trouble, useLatest, useTell, words } from "../ui";

const t = text.run;

export function NewRun({ args, me }: { args: URLSearchParams; me: Me }) {
  const api = useApi();
  const [kind, setKind] = useState(args.get("kind") ?? "test");
  const [sender, setSender] = useState(args.get("sender") ?? "");
  const [recipient, setRecipient] = useState(args.get("recipient") ?? "");
  const [relay, setRelay] = useState(args.get("relay") ?? "");
  const [error, setError] = useState("");
  const start = () =>
    api.post<RunId>("runs", { kind, sender, recipient, relay }).then(
      (r) => go(to("run", r.id)),
      (e) => setError(words(e)),
    );
  return (
    <Page title={t.title} lead={t.lead}>
      <Form class="card narrow" label={t.title} onSubmit={start}>
        <Trouble what={error} />
        <Select
          label={t.kind}
          value={kind}
          onChange={setKind}
          options={[
            ["test", t.test],
            ["explain", t.explain],
          ]}
        />
        <Field label={t.sender} type="email" value={sender} onInput={setSender} required />
        <Field label={t.recipient} type="email" value={recipient} onInput={setRecipient} />
        {me.global && <Field label={t.relay} value={relay} onInput={setRelay} />}
        <button class="primary">{t.start}</button>
      </Form>
    </Page>
  );
}

function AskedList({ asked }: { asked: Asked[] }) {
  return (
    <details>
      <summary>{t.asked}</summary>
      <ul class="plain small">
        {asked.map((a, i) => (
          <li key={i}>
            <Badge kind={a.answer === "found" ? "good" : "plain"}>{a.answer}</Badge>{" "}
            <code>{a.key.replace(/\n/g, " ")}</code> – {a.table}
            {a.value !== undefined && (
              <>
                {" "}
                = <code>{a.value}</code>
              </>
            )}
            {(a.source ?? a.why) && <span class="quiet wrap"> ({a.source ?? a.why})</span>}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Stage({ step }: { step: Step }) {
  const more = Object.entries(t.fields).filter(([k]) => step[k]);
  return (
    <li class={step.pass === false ? "stage failed" : "stage"}>
      <div class="stagehead">
        <Badge kind={step.pass === false ? "bad" : step.pass ? "good" : "plain"}>
          {step.pass === false ? t.failed : step.pass ? t.ok : "·"}
        </Badge>{" "}
        <strong>{step.step}</strong> {step.ms !== undefined && <span class="quiet">{t.ms(step.ms)}</span>}
      </div>
      <div class="wrap">{step.result}</div>
      {step.days_left !== undefined && <div class="small">{t.daysLeft(step.days_left)}</div>}
      {more.length > 0 && (
        <dl class="facts small">
          {more.map(([k, label]) => (
            <div key={k}>
              <dt>{label}</dt>
              <dd class="wrap">{String(step[k])}</dd>
            </div>
          ))}
        </dl>
      )}
      {step.asked && step.asked.length > 0 && <AskedList asked={step.asked} />}
    </li>
  );
}

/** A run with its steps as they happen. */
function useRun(id: string) {
  const api = useLatest(useApi());
  const [run, set] = useState<Run | null>(null);
  const [error, setError] = useState("");
  useEffect(() => {
    let source: EventSource | undefined,
      later: number | undefined,
      gone = false;
    const look = (then: (run: Run) => void) =>
      api.current.get<Run>(`run/${id}`).then(
        (run) => gone || (setError(""), then(run)),
        (e) => gone || setError(words(e)),
      );
    const follow = (first: Run) => {
      set(first.over ? first : { ...first, steps: [] });
      if (first.over) return;
      source = new EventSource(`api/run/${id}`);
      source.addEventListener("step", (e) => set((r) => r && { ...r, steps: [...r.steps, JSON.parse(e.data)] }));
      source.addEventListener("end", (e) => {
        set((r) => r && { ...r, over: true, passed: JSON.parse(e.data).passed });
        source?.close();
      });
      source.onerror = () => {
        source?.close();
        later = setTimeout(look, 1000, follow);
      };
    };
    look(follow);
    return () => {
      gone = true;
      source?.close();
      clearTimeout(later);
    };
  }, [id]);
  return { run, error };
}

export function Result({ id }: { id: string }) {
  const { run, error } = useRun(id);
  const tell = useTell();
  if (!run)
    return <Page title={t.title}>{error ? <Trouble what={error} /> : <p class="quiet">{text.loading}</p>}</Page>;
  const test = run.kind === "test";
  const again = () => go(`#/test?${query({ kind: run.kind, sender: run.sender, recipient: run.recipient })}`);
  return (
    <Page title={(test ? t.resultTest : t.resultExplain)(run.sender, run.recipient)}>
      <p class="quiet">
        {t.begun} <Time at={run.started} />
      </p>
      <ol class="stages" aria-live="polite">
        {run.steps.map((s, i) => (
          <Stage key={i} step={s} />
        ))}
      </ol>
      <p role="status" class={run.over ? (run.passed ? "box good" : "box bad") : "quiet"}>
        {!run.over
          ? error || t.running
          : test
            ? run.passed
              ? t.passedTest
              : t.failedTest
            : run.passed
              ? t.passedExplain
              : t.failedTest}
      </p>
      <p class="row">
        <button type="button" onClick={again}>
          {t.again}
        </button>
        <button
          type="button"
          onClick={() =>
            navigator.clipboard?.writeText(location.href).then(
              () => tell(text.copied),
              () => undefined,
            )
          }
        >
          {text.copyLink}
        </button>
      </p>
    </Page>
  );
}
