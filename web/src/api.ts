// Talking to the server: everything goes through /api, relative to where the page is.  What comes is described by
// openapi.json, from which npm makes openapi.d.ts ("npm run types"); the server's tests hold the server to it.
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { components } from "../openapi";

type Schemas = components["schemas"];
type Responses = components["responses"];

/** What an answer of that name brings. */
type Brings<Name extends keyof Responses> = Responses[Name]["content"]["application/json"] extends {
  _data?: infer Data;
}
  ? NonNullable<Data>
  : never;

export type Asked = Schemas["Asked"];
export type Counts = Schemas["Counts"];
export type Dashboard = Schemas["Dashboard"];
export type Effective = Schemas["Effective"];
export type Finding = Schemas["Finding"];
export type Health = Schemas["Health"];
export type LogEntry = Schemas["LogEntry"];
export type Me = Schemas["Session"];
export type Message = Schemas["QueuedMessage"];
export type Preset = Schemas["Preset"];
export type Profile = Schemas["Profile"];
export type Relay = Schemas["RelayRecord"];
export type Row = Schemas["Row"];
export type Run = Schemas["Run"];
export type Step = Schemas["Step"];
export type Token = Schemas["Token"];

export type Domains = Brings<"Domains">;
export type Users = Brings<"Users">;
export type Found = Brings<"Found">;
export type Validity = Brings<"Validity">;
export type Relays = Brings<"Relays">;
export type Messages = Brings<"Messages">;
export type Count = Brings<"Count">;
export type Findings = Brings<"Findings">;
export type Log = Brings<"Log">;
export type RunId = Brings<"RunId">;
export type NewToken = Brings<"Token">;

export class Failure extends Error {
  constructor(
    public status: number,
    message: string,
  ) {
    super(message);
  }
}

/** The server, as one session asks it. */
export class Api {
  /** csrf: the session's word, "" while nobody is signed in; signedOut: called when the session is over. */
  constructor(
    private csrf: string,
    private signedOut: () => void,
  ) {}

  get<T>(path: string) {
    return this.call<T>("GET", path);
  }
  put<T>(path: string, body: unknown) {
    return this.call<T>("PUT", path, body);
  }
  post<T>(path: string, body: unknown = {}) {
    return this.call<T>("POST", path, body);
  }
  del<T>(path: string) {
    return this.call<T>("DELETE", path);
  }

  private headers(method: string, body: unknown): Record<string, string> {
    const headers: Record<string, string> = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (this.csrf && method !== "GET") headers["X-CSRF-Token"] = this.csrf;
    return headers;
  }

  private async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    let reply: Response;
    try {
      reply = await fetch(`api/${path}`, {
        method,
        credentials: "same-origin",
        headers: this.headers(method, body),
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      throw new Failure(0, "");
    }
    const data = await reply.json().catch(() => ({ _msg: reply.statusText }));
    if (reply.ok && data._success) return data._data as T;
    if (reply.status === 401 && path !== "login" && path !== "session") this.signedOut();
    throw new Failure(reply.status, data._msg ?? reply.statusText);
  }
}

export const ApiContext = createContext(new Api("", () => undefined));
export const useApi = () => useContext(ApiContext);

/** "a=1&b=2" of what is not empty. */
export function query(values: Record<string, string | number | undefined>): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(values)) if (v !== undefined && v !== "") q.set(k, String(v));
  return q.toString();
}
