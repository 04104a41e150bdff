// The page's own addresses stand behind the "#": they work under any path prefix, and never reach a server's log.
import { useEffect, useState } from "preact/hooks";

export interface Place {
  parts: string[];
  args: URLSearchParams;
}

export function here(): Place {
  const [path, args] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decodeURIComponent), args: new URLSearchParams(args ?? "") };
}

export function to(...parts: string[]): string {
  return "#/" + parts.map(encodeURIComponent).join("/");
}

export function go(href: string) {
  location.hash = href;
}

export function usePlace(): Place {
  const [place, set] = useState(here());
  useEffect(() => {
    const changed = () => set(here());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return place;
}
