/** A URL fit to be shown: no user, password, query or fragment, which may all hold secrets. Other text loses what follows an `@` or `?`. */
export function redactUrl(url: string): string {
  try {
    const { protocol, host, pathname } = new URL(url);
    return host === "" ? `${protocol}${pathname}` : `${protocol}//${host}${pathname}`;
  } catch {
    return url.replace(/\/\/[^/@]*@/, "//").replace(/[?#].*$/s, "");
  }
}
