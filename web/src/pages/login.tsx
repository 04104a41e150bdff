import { useState } from "preact/hooks";
import { useApi } from "../api";
import { text } from "../text";
import { Field, Form, Page, Trouble, words } from "../ui";

export function Login({ onIn }: { onIn: () => void }) {
  const api = useApi();
  const [username, setName] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState("");
  const submit = () => api.post("login", { username, password }).then(onIn, (e) => setError(words(e)));
  return (
    <Page title={text.login.title}>
      <p class="brand big">{text.product}</p>
      <Form class="card" onSubmit={submit}>
        <Trouble what={error} />
        <Field
          label={text.login.name}
          type="email"
          name="username"
          autocomplete="username"
          value={username}
          onInput={setName}
          required
        />
        <Field
          label={text.login.password}
          type="password"
          name="password"
          autocomplete="current-password"
          value={password}
          onInput={setPassword}
          required
        />
        <button class="primary">{text.login.submit}</button>
      </Form>
    </Page>
  );
}

/** Behind the one-time link of posthouse admin link. */
export function Welcome({ token, onIn }: { token: string; onIn: () => void }) {
  const api = useApi();
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const [error, setError] = useState("");
  const submit = () => {
    if (password === again) return api.post("welcome", { token, password }).then(onIn, (e) => setError(words(e)));
    setError(text.welcome.differ);
  };
  return (
    <Page title={text.welcome.title} lead={text.welcome.lead}>
      <Form class="card" onSubmit={submit}>
        <Trouble what={error} />
        <Field
          label={text.welcome.password}
          type="password"
          autocomplete="new-password"
          value={password}
          onInput={setPassword}
          required
        />
        <Field
          label={text.welcome.again}
          type="password"
          autocomplete="new-password"
          value={again}
          onInput={setAgain}
          required
        />
        <button class="primary">{text.welcome.submit}</button>
      </Form>
    </Page>
  );
}
