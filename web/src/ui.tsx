// What all pages are made of.
import { ComponentChildren, createContext, JSX } from "preact";
import { MutableRef, useCallback, useContext, useEffect, useRef, useState } from "preact/hooks";
import { Api, Failure, query, useApi, Validity } from "./api";
import { text } from "./text";

export function words(e: unknown): string {
  return e instanceof Failure && e.message ? e.message : text.noConnection;
}

/** A value as the last rendering had it, for callbacks that outlive a rendering. */
export function useLatest<T>(value: T): MutableRef<T> {
  const latest = useRef(value);
  latest.current = value;
  return latest;
}

/**
 * What GET of a path brings; a null path brings nothing.  It is loaded anew when the path or the turn changes, and by
 * again(), with a promise that ends when that was done.  The older answer never overtakes the newer one.
 */
export function useLoad<T>(path: string | null, turn = 0) {
  const [state, set] = useState<{ data?: T; error?: string }>({});
  const [api, at] = [useLatest(useApi()), useLatest(path)];
  const asked = useRef(0);
  const again = useCallback(() => {
    const mine = ++asked.current;
    if (at.current === null) return Promise.resolve();
    return api.current.get<T>(at.current).then(
      (data) => void (mine === asked.current && set({ data })),
      (e) => void (mine === asked.current && set({ error: words(e) })),
    );
  }, []);
  useEffect(() => {
    again();
    return () => {
      asked.current++;
    };
  }, [path, turn]);
  return { ...state, again };
}

/**
 * What is being edited of something that was loaded: the draft, a way to change it, and a way to end it when it was
 * saved and loaded again.  What was changed since a draft was saved does not end with it.
 */
export function useDraft<Source, Draft>(source: Source, begin: (of: Source) => Draft) {
  const [edited, set] = useState<Draft | null>(null);
  const end = (saved: Draft) => set((now) => (now === saved ? null : now));
  return [edited ?? begin(source), (draft: Draft) => set(draft), end] as const;
}

/** After a change that was refused because somebody else has made one: calls show, which loads what is there now. */
export async function showNewer(api: Api, path: string, version: string, e: unknown, show: () => unknown) {
  if (!(e instanceof Failure) || e.status !== 409) return;
  const now = await api.get<{ version: string }>(path).catch(() => undefined);
  if (now && now.version !== version) await show();
}

/** Asks the relay's own parser what is wrong with a value; "": nothing. */
export function useParser(): (kind: string, value: string) => Promise<string> {
  const api = useApi();
  return useCallback(
    async (kind, value) => {
      const v = await api.get<Validity>(`validate?${query({ kind, value })}`);
      return v.valid ? "" : text.relay.bad(v.part, v.problem);
    },
    [api],
  );
}

type Tell = (message: string, bad?: boolean) => void;
const TellContext = createContext<Tell>(() => undefined);
export const useTell = () => useContext(TellContext);

/** Short messages, read out by screen readers; what stands below shows them with useTell(). */
export function Messages(p: { children: ComponentChildren }) {
  const [note, set] = useState<{ text: string; bad: boolean } | null>(null);
  const timer = useRef(0);
  const tell = useCallback((message: string, bad = false) => {
    set({ text: message, bad });
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => set(null), bad ? 12000 : 5000);
  }, []);
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <TellContext.Provider value={tell}>
      <div class="messages" role="status" aria-live="polite">
        {note && <p class={note.bad ? "bad" : "good"}>{note.text}</p>}
      </div>
      {p.children}
    </TellContext.Provider>
  );
}

/** What the window as a whole has: whether a page was shown before, and how many ids were given out. */
interface Own {
  shown: boolean;
  ids: number;
}
const OwnContext = createContext<Own>({ shown: false, ids: 0 });

export function Whole(p: { children: ComponentChildren }) {
  const own = useRef<Own>({ shown: false, ids: 0 });
  return <OwnContext.Provider value={own.current}>{p.children}</OwnContext.Provider>;
}

/** An id that no other element has.  Preact's own useId begins anew in what is mounted later (10.29). */
export function useId(): string {
  const own = useContext(OwnContext);
  return useState(() => `f${++own.ids}`)[0];
}

export function Page(p: {
  title: string;
  lead?: string;
  children: ComponentChildren;
  path?: ComponentChildren;
  side?: ComponentChildren;
}) {
  const h = useRef<HTMLHeadingElement>(null);
  const own = useContext(OwnContext);
  useEffect(() => {
    document.title = `${p.title} – ${text.product}`;
  }, [p.title]);
  useEffect(() => {
    if (own.shown) h.current?.focus(); // the first page takes no focus: the way through it begins at its top
    own.shown = true;
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

/** What went wrong, if anything did. */
export function Trouble({ what }: { what?: string }) {
  if (!what) return null;
  return (
    <p class="box bad" role="alert">
      {what}
    </p>
  );
}

export function Loaded<T>(p: { of: { data?: T; error?: string }; children: (data: T) => ComponentChildren }) {
  if (p.of.data !== undefined) return <>{p.children(p.of.data)}</>;
  if (p.of.error) return <Trouble what={p.of.error} />;
  return <p class="quiet">{text.loading}</p>;
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
  const [said, say] = useState(false);
  useEffect(() => {
    d.current?.showModal();
  }, []);
  return (
    <dialog ref={d} aria-label={p.question} onCancel={p.onNo}>
      <p>{p.question}</p>
      <div class="row">
        <button
          type="button"
          class="danger"
          disabled={said}
          onClick={() => {
            say(true);
            p.onYes();
          }}
        >
          {p.yes}
        </button>
        <button type="button" onClick={p.onNo}>
          {text.cancel}
        </button>
      </div>
    </dialog>
  );
}

/** onSubmit's promise, if it has one, ends when all is done: until then the form is not sent once more. */
export function Form(p: { onSubmit: () => unknown; children: ComponentChildren; class?: string; label?: string }) {
  const busy = useRef(false);
  const submit: JSX.SubmitEventHandler<HTMLFormElement> = (e) => {
    e.preventDefault();
    if (busy.current) return;
    busy.current = true;
    Promise.resolve(p.onSubmit()).finally(() => (busy.current = false));
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
