"use strict";
// What the report and the leaderboard share: the address that remembers a view, and tables wider than the page.
const page = (() => {
  // The view that the address names, after the #; empty for the address of a section.
  let known = location.hash;
  function view() {
    known = location.hash;
    return new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  }

  // A form's choices but for those that it has from the start, and `more`, become the address.
  let waiting = 0;
  function remember(form, more = () => ({})) {
    clearTimeout(waiting);
    waiting = setTimeout(() => { // browsers allow only so many changes a second
      if (location.hash !== known) return; // a new address, which is about to be followed
      const chosen = new URLSearchParams();
      for (const [name, value] of new FormData(form)) {
        if (value && !(form.elements[name].selectedIndex === 0)) chosen.set(name, value);
      }
      for (const [name, value] of Object.entries(more())) if (value) chosen.set(name, value);
      if (`${chosen}` || known.includes("=")) history.replaceState(null, "", `#${chosen}`);
      known = location.hash;
    }, 100);
  }

  // Choose what a view asks for, and nothing else; what the form does not have is left out.
  function choose(form, wanted) {
    for (const control of form.elements) {
      if (control instanceof HTMLSelectElement) control.selectedIndex = 0;
      else if (control.type === "checkbox") control.checked = false;
      else if (control instanceof HTMLInputElement) control.value = "";
    }
    for (const [name, value] of wanted) {
      const control = form.elements[name];
      if (control?.type === "checkbox") control.checked = true;
      else if (control instanceof HTMLSelectElement) {
        if ([...control.options].some((option) => option.value === value)) control.value = value;
      } else if (control instanceof HTMLInputElement) control.value = value;
    }
  }

  // A table that fits scrolls with the page, below its header; a wider one has a window of its own, and says so.
  function measure(region) {
    const hidden = region.scrollWidth - region.clientWidth;
    region.classList.toggle("fits", hidden <= 1);
    region.classList.toggle("more-left", region.scrollLeft > 1);
    region.classList.toggle("more-right", region.scrollLeft < hidden - 1);
  }

  const sizes = new ResizeObserver((changes) => requestAnimationFrame(() => {
    for (const { target } of changes) measure(target.closest(".scroll"));
  }));
  for (const region of document.querySelectorAll(".scroll")) {
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.setAttribute("aria-hidden", "true");
    hint.textContent = "Wider than this page: scroll sideways \u2192";
    region.before(hint);
    region.addEventListener("scroll", () => measure(region), { passive: true });
    sizes.observe(region);
    sizes.observe(region.firstElementChild);
    measure(region);
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  return { view, remember, choose };
})();
