// Talking to the server: everything goes through /api, relative to where the page is.

export interface Me {
  admin: string;
  global: boolean;
  csrf: string;
  version: string;
}
export interface RelayOf {
  value: string;
  from: "own" | "domain" | "everybody" | "direct";
}
export interface Row {
  name: string;
  title: string;
  active: boolean;
  transport: string;
  relay?: RelayOf;
  users?: number;
  admin?: boolean;
  is_backupmx?: boolean;
}
export interface Profile {
  name: string;
  title: string;
  accountStatus: string;
  relay_tab: boolean;
  domain?: string;
  transport?: string;
  outboundRelay?: string;
  is_backupmx?: string;
  primarymx?: string;
  default_transport?: string;
  domain_transport?: string;
  domain_outboundRelay?: string;
}
export interface Effective {
  rule: string;
  key: string;
  next_hop: string;
  transport: string;
  credentials: string;
  tls: string;
  problem: string;
}
export interface Health {
  nexthop?: string;
  record?: string;
  sent?: number;
  deferred?: number;
  bounced?: number;
  waiting?: number;
  last_success?: number;
  last_failure?: number;
  error?: string;
  advice?: string;
  dsn?: string;
  resting_until?: number;
  certificate_until?: number;
}
export interface Relay {
  name: string;
  nexthop: string;
  for: string;
  hosts: string;
  tls: string;
  mechanisms: string;
  user: string;
  password_set: boolean;
  used_by?: number;
  users?: string[];
  more_users?: boolean;
  health: Health;
}
export interface Preset {
  id: string;
  name: string;
  hosts: string;
  tls: string;
  mechanisms: string;
  user: string;
  password: string;
  note: string;
}
export interface Step {
  step: string;
  result?: string;
  pass?: boolean;
  ms?: number;
  days_left?: number;
  asked?: Asked[];
  [more: string]: unknown;
}
export interface Asked {
  table: string;
  key: string;
  answer: string;
  value?: string;
  source?: string;
  why?: string;
}
export interface Run {
  id: string;
  kind: "test" | "explain";
  sender: string;
  recipient: string;
  started: number;
  over: boolean;
  passed: boolean;
  steps: Step[];
}
export interface Message {
  queue_name: string;
  queue_id: string;
  arrival_time: number;
  message_size: number;
  sender: string;
  attempts: number;
  next_attempt: number;
  recipients: { address: string; delay_reason?: string }[];
  relay?: string;
  record?: string;
  cursor: string;
  advice?: string;
}
export interface Counts {
  active: number;
  deferred: number;
  hold: number;
  relays: { relay: string; record: string; messages: number }[];
  reasons: { reason: string; messages: number }[];
}
export interface Dashboard {
  now: {
    active: number;
    deferred: number;
    hold: number;
    results: { since: number; sent: number; deferred: number; bounced: number };
    oldest?: { arrival_time: number; queue_id: string; sender: string };
  };
  history: { at: number[]; sent: number[]; deferred: number[]; bounced: number[]; waiting: number[] };
  relays: Health[];
  senders: { sender: string; sent: number; deferred: number; bounced: number }[];
  certificates: { relay: string; record: string; until: number }[];
}
export interface Finding {
  level: "note" | "warning" | "error";
  text: string;
  file: string;
  line: number;
}

export class Failure extends Error {
  constructor(
    public status: number,
    message: string,
  ) {
    super(message);
  }
}

let csrf = "";
let onSignedOut: () => void = () => undefined;

export function setCsrf(word: string) {
  csrf = word;
}
export function whenSignedOut(fn: () => void) {
  onSignedOut = fn;
}

export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  let reply: Response;
  try {
    reply = await fetch(`api/${path}`, {
      method,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(csrf && method !== "GET" ? { "X-CSRF-Token": csrf } : {}),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Failure(0, "");
  }
  const data = await reply.json().catch(() => ({ _msg: reply.statusText }));
  if (reply.ok && data._success) return data._data as T;
  if (reply.status === 401 && path !== "login" && path !== "session") onSignedOut();
  throw new Failure(reply.status, data._msg ?? reply.statusText);
}

export const get = <T>(path: string) => call<T>("GET", path);
export const put = <T>(path: string, body: unknown) => call<T>("PUT", path, body);
export const post = <T>(path: string, body: unknown = {}) => call<T>("POST", path, body);
export const del = <T>(path: string) => call<T>("DELETE", path);

/** "a=1&b=2" of what is not empty. */
export function query(values: Record<string, string | number | undefined>): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(values)) if (v !== undefined && v !== "") q.set(k, String(v));
  return q.toString();
}
