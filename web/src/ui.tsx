// What all pages are made of.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, get, query } from "./api";
import { text } from "./text";

export function words(e: unknown): string {
  return e instanceof Failure && e.message ? e.message : text.noConnection;
}

/** Loads something when what it depends on changes; the older answer never overtakes the newer one. */
export function useLoad<T>(load: () => Promise<T>, deps: unknown[]) {
  const [state, set] = useState<{ data?: T; error?: string; loading: boolean }>({ loading: true });
  const turn = useRef(0);
  const again = () => {
    const mine = ++turn.current;
    set((s) => ({ ...s, loading: true }));
    load().then(
      (data) => mine === turn.current && set({ data, loading: false }),
      (e) => mine === turn.current && set({ error: words(e), loading: false }),
    );
  };
  useEffect(() => {
    again();
    return () => {
      turn.current++;
    };
  }, deps);
  return { ...state, again };
}

/** What the relay's own parser finds wrong with a value; "": nothing. */
export async function problemOf(kind: string, value: string): Promise<string> {
  const v = await get<{ valid: boolean; problem: string; part: string }>(`validate?${query({ kind, value })}`);
  return v.valid ? "" : text.relay.bad(v.part, v.problem);
}

let say: (message: string, bad?: boolean) => void = () => undefined;
export const tell = (message: string, bad = false) => say(message, bad);

/** Short messages, read out by screen readers. */
export function Messages() {
  const [note, set] = useState<{ text: string; bad: boolean } | null>(null);
  useEffect(() => {
    let timer = 0;
    say = (message, bad = false) => {
      set({ text: message, bad });
      clearTimeout(timer);
      timer = window.setTimeout(() => set(null), bad ? 12000 : 5000);
    };
  }, []);
  return (
    <div class="messages" role="status" aria-live="polite">
      {note && <p class={note.bad ? "bad" : "good"}>{note.text}</p>}
    </div>
  );
}

let moved = false; // the first page that is shown takes no focus: the way through it begins at its top

export function Page(p: {
  title: string;
  lead?: string;
  children: ComponentChildren;
  path?: ComponentChildren;
  side?: ComponentChildren;
}) {
  const h = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${p.title} – ${text.product}`;
  }, [p.title]);
  useEffect(() => {
    if (moved) h.current?.focus();
    moved = true;
  }, []);
  return (
    <>
      {p.path && (
        <nav class="path" aria-label={text.profile.path}>
          {p.path}
        </nav>
      )}
      <div class="head">
        <h1 tabIndex={-1} ref={h}>
          {p.title}
        </h1>
        {p.side}
      </div>
      {p.lead && <p class="lead">{p.lead}</p>}
      {p.children}
    </>
  );
}

export function Loaded<T>(p: { of: { data?: T; error?: string }; children: (data: T) => ComponentChildren }) {
  if (p.of.data !== undefined) return <>{p.children(p.of.data)}</>;
  if (p.of.error)
    return (
      <p class="box bad" role="alert">
        {p.of.error}
      </p>
    );
  return <p class="quiet">{text.loading}</p>;
}

let fields = 0;
export function useId(): string {
  const [id] = useState(() => `f${++fields}`);
  return id;
}

export function Field(p: {
  label: string;
  value: string;
  onInput: (v: string) => void;
  type?: string;
  hint?: ComponentChildren;
  problem?: string;
  good?: string;
  disabled?: boolean;
  autocomplete?: string;
  required?: boolean;
  list?: string;
  placeholder?: string;
  name?: string;
  spellcheck?: boolean;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{p.label}</label>
      <input
        id={id}
        type={p.type ?? "text"}
        name={p.name}
        value={p.value}
        disabled={p.disabled}
        required={p.required}
        list={p.list}
        placeholder={p.placeholder}
        autocomplete={(p.autocomplete ?? "off") as "off"}
        autocapitalize="off"
        spellcheck={false}
        aria-describedby={`${id}h`}
        aria-invalid={p.problem ? "true" : undefined}
        onInput={(e) => p.onInput(e.currentTarget.value)}
      />
      <div id={`${id}h`} class="hint" aria-live="polite">
        {p.problem ? <span class="problem">{p.problem}</span> : p.good ? <span class="fine">{p.good}</span> : p.hint}
      </div>
    </div>
  );
}

export function Check(p: { label: string; checked: boolean; onChange: (v: boolean) => void; disabled?: boolean }) {
  const id = useId();
  return (
    <div class="check">
      <input
        id={id}
        type="checkbox"
        checked={p.checked}
        disabled={p.disabled}
        onChange={(e) => p.onChange(e.currentTarget.checked)}
      />
      <label for={id}>{p.label}</label>
    </div>
  );
}

export function Select(p: {
  label: string;
  value: string;
  onChange: (v: string) => void;
  options: [string, string][];
  hint?: string;
  disabled?: boolean;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{p.label}</label>
      <select id={id} value={p.value} disabled={p.disabled} onChange={(e) => p.onChange(e.currentTarget.value)}>
        {p.options.map(([v, label]) => (
          <option key={v} value={v}>
            {label}
          </option>
        ))}
      </select>
      {p.hint && <div class="hint">{p.hint}</div>}
    </div>
  );
}

export function Table(p: { caption: string; head: ComponentChildren; children: ComponentChildren; class?: string }) {
  return (
    <div class={`scroll ${p.class ?? ""}`} tabIndex={0} role="region" aria-label={p.caption}>
      <table>
        <caption class="unseen">{p.caption}</caption>
        <thead>
          <tr>{p.head}</tr>
        </thead>
        <tbody>{p.children}</tbody>
      </table>
    </div>
  );
}

export function Badge(p: { kind: "good" | "bad" | "warn" | "plain"; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${p.kind}`} title={p.title}>
      {p.children}
    </span>
  );
}

/** A question in a dialog of its own; Escape says no. */
export function Confirm(p: { question: string; yes: string; onYes: () => void; onNo: () => void }) {
  const d = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    d.current?.showModal();
  }, []);
  return (
    <dialog ref={d} aria-label={p.question} onCancel={p.onNo}>
      <p>{p.question}</p>
      <div class="row">
        <button type="button" class="danger" onClick={p.onYes}>
          {p.yes}
        </button>
        <button type="button" onClick={p.onNo}>
          {text.cancel}
        </button>
      </div>
    </dialog>
  );
}

export function Form(p: { onSubmit: () => void; children: ComponentChildren; class?: string; label?: string }) {
  const submit: JSX.SubmitEventHandler<HTMLFormElement> = (e) => {
    e.preventDefault();
    p.onSubmit();
  };
  return (
    <form class={p.class} aria-label={p.label} onSubmit={submit}>
      {p.children}
    </form>
  );
}

const clock = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const when = (seconds?: number) => (seconds ? clock.format(new Date(seconds * 1000)) : text.never);

export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1048576) return `${(bytes / 1024).toFixed(1)} KB`;
  return `${(bytes / 1048576).toFixed(1)} MB`;
}

export function Time(p: { at?: number }) {
  if (!p.at) return <>{text.never}</>;
  return <time dateTime={new Date(p.at * 1000).toISOString()}>{when(p.at)}</time>;
}
