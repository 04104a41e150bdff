import { Found, query, Row } from "../api";
import { to } from "../router";
import { text } from "../text";
import { Loaded, Page, useLoad } from "../ui";
import { RelayCell } from "./accounts";

function FoundRows({ title, rows, kind }: { title: string; rows: Row[]; kind: string }) {
  if (rows.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul class="plain">
        {rows.map((r) => (
          <li key={r.name}>
            <a href={to(kind, r.name, "relay")}>{r.name}</a> <span class="quiet">{r.title}</span>{" "}
            {r.relay && <RelayCell row={r} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

export function Search({ q }: { q: string }) {
  const found = useLoad<Found>(`search?${query({ q })}`);
  return (
    <Page title={`${text.search.title}: ${q}`}>
      <Loaded of={found}>
        {(data) => (
          <>
            {data.domains.length + data.users.length === 0 && <p>{text.search.nothing}</p>}
            <FoundRows title={text.search.domains} rows={data.domains} kind="domain" />
            <FoundRows title={text.search.users} rows={data.users} kind="user" />
            {data.more && <p class="quiet">…</p>}
          </>
        )}
      </Loaded>
    </Page>
  );
}
