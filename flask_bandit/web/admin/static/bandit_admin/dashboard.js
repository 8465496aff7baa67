// Refreshes the numbers of a bandit's page without loading it again. The page works without it.
"use strict";

(() => {
  const EVERY = 10_000;
  const AT_MOST = 300_000;
  const GIVE_UP = 30_000;
  const KEPT = "summary, a[href], [tabindex='0']";

  const live = document.querySelector("[data-live]");
  if (!live) return;

  const banner = document.createElement("p");
  banner.className = "message message-problem live-state";
  banner.setAttribute("role", "status");
  const news = document.createElement("p");
  news.className = "unseen";
  news.setAttribute("aria-live", "polite");
  live.before(banner, news);

  let wait = EVERY;
  let timer = 0;
  let isAsking = false;

  const textOf = (selector) => live.querySelector(selector)?.textContent.trim() ?? "";
  const say = (element, text) => {
    // The same words again would be read aloud again.
    if (element.textContent !== text) element.textContent = text;
  };

  const nameOf = (element) =>
    [element.tagName, element.getAttribute("href"), element.getAttribute("aria-label"),
      element.closest("[data-keep]")?.dataset.keep].join("|");

  const named = () => new Map([...live.querySelectorAll(KEPT)].map((each) => [nameOf(each), each]));

  const isInUse = () => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && live.contains(selection.anchorNode);
    return document.hidden || selects || Boolean(document.activeElement?.closest("form"));
  };

  const replace = (fresh) => {
    const verdict = textOf("[data-verdict]");
    const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.dataset.keep));
    const focused = live.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    const scrolled = [...named()].map(([name, each]) => [name, each.scrollLeft, each.scrollTop]);
    const [left, top] = [window.scrollX, window.scrollY];

    live.replaceChildren(...fresh.childNodes);

    for (const each of live.querySelectorAll("details")) each.open = open.has(each.dataset.keep);
    const found = named();
    for (const [name, x, y] of scrolled) if (x || y) found.get(name)?.scrollTo(x, y);
    if (focused !== null) found.get(focused)?.focus({ preventScroll: true });
    window.scrollTo({ left, top, behavior: "instant" });
    if (textOf("[data-verdict]") !== verdict) say(news, textOf("[data-verdict]"));
  };

  const ask = async () => {
    const answer = await fetch(live.dataset.live, {
      headers: { Accept: "text/html" },
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(GIVE_UP),
    });
    if (answer.status === 503) return "The storage is down";
    if (answer.status === 403) return "You may not see this any more; load the page again";
    if (!answer.ok) return `The server answers ${answer.status}`;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").body;
    if (!fresh.querySelector("[data-verdict]")) return "The server answers with another page";
    if (!isInUse()) replace(fresh);
    return "";
  };

  const refresh = async () => {
    if (isAsking) return;
    clearTimeout(timer);
    if (!isInUse()) {
      isAsking = true;
      const problem = await ask().catch(() => "The server does not answer");
      isAsking = false;
      wait = problem ? Math.min(2 * wait, AT_MOST) : EVERY;
      say(banner, problem && `${problem}. The numbers below are from ${textOf("[data-read-at]")}.`);
    }
    if (!document.hidden) timer = setTimeout(refresh, wait);
  };

  document.addEventListener("visibilitychange", refresh);
  timer = setTimeout(refresh, EVERY);
})();
