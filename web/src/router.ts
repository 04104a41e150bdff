// The page's own addresses stand behind the "#": they work under any path prefix, and never reach a server's log.
import { useEffect, useState } from "preact/hooks";

/** hash is the whole address: a page is mounted anew for each, so that what a page holds begins with its address. */
export interface Place {
  hash: string;
  parts: string[];
  args: URLSearchParams;
}

/** What somebody has typed or cut off stays as it is. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function here(): Place {
  const hash = location.hash;
  const [path, args] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { hash, parts, args: new URLSearchParams(args ?? "") };
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
