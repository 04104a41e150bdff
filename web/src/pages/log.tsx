import { Log as Data, query } from "../api";
import { go } from "../router";
import { text } from "../text";
import { Loaded, Page, Select, Table, useLoad } from "../ui";

const t = text.log;
const events = ["", "login", "update", "create", "delete"];

export function Log({ args }: { args: URLSearchParams }) {
  const event = args.get("event") ?? "",
    before = args.get("before") ?? "";
  const list = useLoad<Data>(`log?${query({ event, before })}`);
  return (
    <Page title={t.title}>
      <div class="row filter">
        <Select
          label={t.event}
          value={event}
          options={events.map((e) => [e, e || t.all])}
          onChange={(e) => go(`#/log?${query({ event: e })}`)}
        />
      </div>
      <Loaded of={list}>
        {(data) =>
          data.entries.length === 0 ? (
            <p class="quiet">{t.empty}</p>
          ) : (
            <>
              <Table
                class="cards plainhead"
                caption={t.title}
                head={
                  <>
                    <th scope="col">{t.time}</th>
                    <th scope="col">{t.admin}</th>
                    <th scope="col" class="wide">
                      {t.ip}
                    </th>
                    <th scope="col">{t.message}</th>
                  </>
                }
              >
                {data.entries.map((e) => (
                  <tr key={e.id}>
                    <td>{e.timestamp}</td>
                    <td>{e.admin}</td>
                    <td class="wide">{e.ip}</td>
                    <td class="wrap">{e.msg}</td>
                  </tr>
                ))}
              </Table>
              {data.more && (
                <p>
                  <a href={`#/log?${query({ event, before: data.entries[data.entries.length - 1].id })}`}>
                    {text.more}
                  </a>
                </p>
              )}
            </>
          )
        }
      </Loaded>
    </Page>
  );
}
