// Tells the shop that somebody has opened the story below the button, once for each bandit.
const story = document.getElementById("story");

story.addEventListener("toggle", () => {
  // There is no token for those who are not counted.
  for (const token of story.dataset.tokens.split(" ").filter(Boolean)) {
    // A beacon arrives even if the page is left at once.
    navigator.sendBeacon(story.dataset.url, token);
  }
}, { once: true });
