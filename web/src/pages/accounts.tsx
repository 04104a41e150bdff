// The list of domains, and the list of a domain's users.
import { useState } from "preact/hooks";
import { Domains, query, Row, Users } from "../api";
import { go, to } from "../router";
import { text } from "../text";
import { Badge, Field, Form, Loaded, Page, Table, useLoad } from "../ui";

/** Who relays where, and who says so. */
export function RelayCell({ row }: { row: Row }) {
  if (!row.relay) return <span class="quiet">–</span>;
  const { value, from } = row.relay;
  return (
    <>
      {value && <code>{value}</code>} <span class="quiet">{text.from[from]}</span>
    </>
  );
}

function Status({ row }: { row: Row }) {
  const t = text.domains;
  if (!row.active) return <Badge kind="warn">{text.disabled}</Badge>;
  if (row.is_backupmx && row.transport?.startsWith("relay:"))
    return (
      <Badge kind="plain" title={t.backupTip}>
        {t.backupLabel}
      </Badge>
    );
  if (row.is_backupmx)
    return (
      <Badge kind="plain" title={t.relayTip(row.transport ?? "")}>
        {t.relayLabel}
      </Badge>
    );
  return <Badge kind="good">{text.active}</Badge>;
}

function DomainRow({ row }: { row: Row }) {
  const n = row.users ?? 0;
  return (
    <tr>
      <th scope="row">
        <a href={to("domain", row.name, "relay")}>{row.name}</a>
      </th>
      <td class="wide">{row.title}</td>
      <td>
        <RelayCell row={row} />
      </td>
      <td>
        <a href={to("users", row.name)}>
          {n >= 1000 ? "1000+" : n}
          <span class="unseen">
            {" "}
            {text.domains.ofUsers} {row.name}
          </span>
        </a>
      </td>
      <td class="wide">
        <Status row={row} />
      </td>
    </tr>
  );
}

function UserRow({ row }: { row: Row }) {
  return (
    <tr>
      <th scope="row">
        <a href={to("user", row.name, "relay")}>{row.name}</a>
      </th>
      <td class="wide">{row.title}</td>
      <td>
        <RelayCell row={row} />
      </td>
      <td class="wide">
        {row.active ? <Badge kind="good">{text.active}</Badge> : <Badge kind="warn">{text.disabled}</Badge>}{" "}
        {row.admin && <Badge kind="plain">{text.users.admin}</Badge>}
      </td>
    </tr>
  );
}

export function Accounts({ domain, args }: { domain?: string; args: URLSearchParams }) {
  const [filter, setFilter] = useState(args.get("search") ?? "");
  const search = args.get("search") ?? "",
    after = args.get("after") ?? "";
  const kind = domain ? "users" : "domains";
  const home = domain ? to("users", domain) : to("domains");
  const path = domain ? `users/${encodeURIComponent(domain)}` : "domains";
  const list = useLoad<Partial<Domains & Users>>(`${path}?${query({ search, after })}`);
  const t = text.domains,
    u = text.users;
  return (
    <Page
      title={domain ? u.title(domain) : t.title}
      path={
        domain && (
          <>
            <a href={to("domains")}>{text.profile.allDomains}</a> / <a href={to("domain", domain, "relay")}>{domain}</a>
          </>
        )
      }
    >
      <Form class="row filter" label={t.filter} onSubmit={() => go(`${home}?${query({ search: filter })}`)}>
        <Field label={t.filter} value={filter} onInput={setFilter} placeholder={domain ? u.filterHint : t.filterHint} />
        <button>{t.filter}</button>
      </Form>
      <Loaded of={list}>
        {(data) => {
          const rows = data[kind] ?? [];
          if (rows.length === 0) return <p class="quiet">{domain ? u.empty : t.empty}</p>;
          return (
            <>
              <Table
                caption={domain ? u.title(domain) : t.title}
                head={
                  <>
                    <th scope="col">{domain ? u.address : t.domain}</th>
                    <th scope="col" class="wide">
                      {domain ? u.name : t.description}
                    </th>
                    <th scope="col">{t.relay}</th>
                    {!domain && <th scope="col">{t.users}</th>}
                    <th scope="col" class="wide">
                      {t.status}
                    </th>
                  </>
                }
              >
                {rows.map((row) =>
                  domain ? <UserRow key={row.name} row={row} /> : <DomainRow key={row.name} row={row} />,
                )}
              </Table>
              <p class="row">
                {after && <a href={`${home}?${query({ search })}`}>{text.first}</a>}
                {data.more && (
                  <a href={`${home}?${query({ search, after: rows[rows.length - 1].name })}`}>{text.more}</a>
                )}
              </p>
            </>
          );
        }}
      </Loaded>
    </Page>
  );
}
