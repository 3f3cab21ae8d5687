(function () {
  var svg = document.documentElement, says = document.getElementById("says"), hint = says.textContent;
  var frames = Array.prototype.map.call(document.querySelectorAll("g.f"), function (g) {
    var r = g.querySelector("rect"), t = g.querySelector("text"), title = g.querySelector("title").textContent;
    return { g: g, r: r, t: t, title: title, name: title.replace(/ \([^(]*\)$/, ""),
      x: +r.getAttribute("x"), w: +r.getAttribute("width"), y: +r.getAttribute("y") };
  });
  function place(f, x, w) {
    f.r.setAttribute("x", x); f.r.setAttribute("width", w);
    var n = Math.floor((w - 6) / 6.6);
    if (n < 3) { if (f.t) f.t.textContent = ""; return; }
    if (!f.t) {
      f.t = document.createElementNS("http://www.w3.org/2000/svg", "text");
      f.t.setAttribute("y", f.y + 12); f.g.appendChild(f.t);
    }
    f.t.setAttribute("x", x + 3);
    f.t.textContent = f.name.length <= n ? f.name : f.name.slice(0, n - 2) + "..";
  }
  function zoom(to) {
    var k = 1200 / to.w;
    frames.forEach(function (f) {
      var above = f.y < to.y && f.x <= to.x + .05 && f.x + f.w >= to.x + to.w - .05;
      var within = f.y >= to.y && f.x >= to.x - .05 && f.x + f.w <= to.x + to.w + .05;
      f.g.style.display = above || within ? "" : "none";
      f.g.classList.toggle("faded", above);
      if (above) place(f, 0, 1200); else if (within) place(f, (f.x - to.x) * k, f.w * k);
    });
  }
  function search() {
    var text = window.prompt("Frames whose name contains (a regular expression):", "");
    if (text === null) return;
    var re = text ? new RegExp(text) : null, n = 0, upTo = -1, sum = 0;
    frames.slice().sort(function (a, b) { return a.x - b.x || a.y - b.y; }).forEach(function (f) {
      var hit = !!re && re.test(f.name);
      f.g.classList.toggle("hit", hit);
      if (!hit) return;
      n++;
      if (f.x >= upTo - .05) { sum += f.w; upTo = f.x + f.w; }
    });
    says.textContent = re ? n + " frames, " + (sum / 12).toFixed(2) + " % of all" : hint;
  }
  frames.forEach(function (f) {
    f.g.addEventListener("click", function () { zoom(f); });
    f.g.addEventListener("mouseover", function () { says.textContent = f.title; });
  });
  svg.addEventListener("mouseleave", function () { says.textContent = hint; });
  window.addEventListener("keydown", function (e) {
    if (e.key === "/") { e.preventDefault(); search(); }
    if (e.key === "Escape" && frames.length) zoom(frames[0]);
  });
})();
