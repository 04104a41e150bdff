import { useState } from "preact/hooks";
import { Me, NewToken, Token, useApi } from "../api";
import { text } from "../text";
import { Check, Field, Form, Loaded, Page, Table, Time, Trouble, useLoad, useTell, words } from "../ui";

const t = text.tokens;

function Add({ me, done }: { me: Me; done: () => void }) {
  const api = useApi();
  const [name, setName] = useState("");
  const [domain, setDomain] = useState("");
  const [days, setDays] = useState("365");
  const [scopes, setScopes] = useState<string[]>(["read"]);
  const [error, setError] = useState("");
  const [token, setToken] = useState("");
  const all = Object.keys(t.scope).filter((s) => me.global || ["read", "accounts", "test"].includes(s));
  const add = () => {
    const body = { name, domain, days: /^\d+$/.test(days) ? Number(days) : days, scopes: scopes.join(" ") };
    return api.post<NewToken>("tokens", body).then(
      (r) => {
        setToken(r.token);
        setError("");
        setName("");
        done();
      },
      (e) => setError(words(e)),
    );
  };
  return (
    <Form class="card narrow" label={t.add} onSubmit={add}>
      <Trouble what={error} />
      {token && (
        <p class="box good" role="status">
          {t.once}
          <br />
          <code class="wrap">{token}</code>
        </p>
      )}
      <Field label={t.name} value={name} onInput={setName} required />
      <fieldset>
        <legend>{t.scopes}</legend>
        {all.map((s) => (
          <Check
            key={s}
            label={t.scope[s]}
            checked={scopes.includes(s)}
            onChange={(on) => setScopes(on ? [...scopes, s] : scopes.filter((x) => x !== s))}
          />
        ))}
      </fieldset>
      <Field label={t.domain} value={domain} onInput={setDomain} />
      <Field label={t.days} value={days} onInput={setDays} />
      <button class="primary">{t.add}</button>
    </Form>
  );
}

export function Tokens({ me }: { me: Me }) {
  const [api, tell] = [useApi(), useTell()];
  const list = useLoad<Token[]>("tokens");
  const revoke = (id: number) => api.del(`token/${id}`).then(list.again, (e) => tell(words(e), true));
  return (
    <Page title={t.title} lead={t.lead}>
      <Loaded of={list}>
        {(tokens) =>
          tokens.length === 0 ? (
            <p class="quiet">{t.empty}</p>
          ) : (
            <Table
              caption={t.title}
              head={
                <>
                  <th scope="col">{t.name}</th>
                  <th scope="col">{t.scopes}</th>
                  <th scope="col" class="wide">
                    {t.bound}
                  </th>
                  <th scope="col" class="wide">
                    {t.used}
                  </th>
                  <th scope="col" class="wide">
                    {t.expires}
                  </th>
                  <th scope="col">{t.revoke}</th>
                </>
              }
            >
              {tokens.map((k) => (
                <tr key={k.id}>
                  <th scope="row">{k.name}</th>
                  <td>{k.scopes}</td>
                  <td class="wide">{k.domain || "–"}</td>
                  <td class="wide">
                    <Time at={k.used} />
                  </td>
                  <td class="wide">
                    <Time at={k.expires} />
                  </td>
                  <td>
                    <button type="button" class="danger" aria-label={t.revokeIt(k.name)} onClick={() => revoke(k.id)}>
                      {t.revoke}
                    </button>
                  </td>
                </tr>
              ))}
            </Table>
          )
        }
      </Loaded>
      <Add me={me} done={list.again} />
    </Page>
  );
}
