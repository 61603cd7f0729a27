// Interactive plots of a page: each element "script[data-plot]" holds one as JSON and is drawn behind itself, as SVG.
// Hover reads out the nearest point, a drag zooms, a double click resets, entries of the legend toggle their curves.
"use strict";
(() => {
  const COLOURS = ["#20639b", "#d1603d", "#2e8b57", "#7b5ea7", "#c58a00", "#5f6b7a", "#c0399f", "#3aa6a6"];
  const NEAR = 40; // pixels within which a point is read out
  const SVG = "http://www.w3.org/2000/svg";

  const svg = (parent, name, attributes, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const html = (parent, name, className, text) => {
    const element = document.createElement(name);
    element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };

  // An axis maps values to [0, 1]; null where it has no place for a value, as a logarithm has none for zero.
  const axis = (low, high, isLog) => {
    const f = isLog ? Math.log10 : (v) => v;
    const span = f(high) - f(low);
    return {
      low, high, isLog,
      place: (v) => (v === null || (isLog && v <= 0) ? null : (f(v) - f(low)) / span),
      value: (u) => (isLog ? 10 ** (f(low) + u * span) : low + u * span),
    };
  };
  const range = (values, isLog, margin) => {
    let low = Infinity, high = -Infinity;
    for (const v of values) if (v !== null && !(isLog && v <= 0)) [low, high] = [Math.min(low, v), Math.max(high, v)];
    if (low > high) return [isLog ? 1 : 0, isLog ? 10 : 1];
    if (isLog) {
      const factor = low === high ? 2 : (high / low) ** margin;
      return [low / factor, high * factor];
    }
    const gap = margin * (high - low) || (low === high ? Math.abs(low) / 10 || 1 : 0);
    return [low - gap, high + gap];
  };

  const steps = (low, high, count) => {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((m) => m * power >= rough) || 10);
    const first = Math.ceil(low / step - 1e-9), found = [];
    for (let k = first; k * step <= high + 1e-9 * step && found.length < 50; k++) found.push(k * step);
    return { step, found };
  };
  const ticks = ({ low, high, isLog }, count) => {
    if (isLog && high / low >= 10) {
      const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
      const factors = last - first <= 3 ? [1, 2, 5] : [1], every = Math.ceil((last - first) / 8);
      const found = [];
      for (let k = first; k <= last; k += every) for (const m of factors) found.push(m * 10 ** k);
      return found.filter((v) => v >= low && v <= high).map((v) => [v, plain(v, 1)]);
    }
    const { step, found } = steps(low, high, count), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const short = Math.max(Math.abs(low), Math.abs(high)) < 1e6 && digits < 5;
    return found.map((v) => [v, short ? v.toFixed(digits).replace(/^-(0\.?0*)$/, "$1") : plain(v, 6)]);
  };
  const plain = (value, digits) => {
    const size = Math.abs(value);
    if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1).replace(/\.?0*e\+?/, "e");
    return String(+value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size + 1)))));
  };

  class Chart {
    constructor(script) {
      this.data = JSON.parse(script.textContent);
      this.root = html(script.parentElement, "div", "chart");
      script.after(this.root);
      const names = this.data.curves.map((curve) => curve.group || curve.name);
      this.names = [...new Set(names)];
      this.data.curves.forEach((curve, k) => (curve.entry = this.names.indexOf(names[k])));
      this.hidden = new Set();
      this.zoom = null;
      this.addLegend();
      this.frame = html(this.root, "div", "chart-frame");
      this.readout = html(this.frame, "div", "chart-readout");
      this.readout.hidden = true;
      this.listen();
      this.width = 0;
      new ResizeObserver(() => this.frame.clientWidth !== this.width && this.draw()).observe(this.frame);
      this.draw();
    }

    colour(curve) {
      return COLOURS[curve.entry % COLOURS.length];
    }

    get shown() {
      return this.data.curves.filter((curve) => !this.hidden.has(curve.entry));
    }

    addLegend() {
      const legend = html(this.root, "div", "chart-legend");
      this.names.forEach((name, k) => {
        if (!name || this.names.length < 2) return;
        const button = html(legend, "button", "", name);
        button.type = "button";
        button.style.setProperty("--colour", COLOURS[k % COLOURS.length]);
        button.setAttribute("aria-pressed", "true");
        button.addEventListener("click", () => {
          if (!this.hidden.delete(k)) this.hidden.add(k);
          button.setAttribute("aria-pressed", String(!this.hidden.has(k)));
          this.draw();
        });
      });
      this.reset = html(legend, "button", "chart-reset", "reset zoom");
      this.reset.type = "button";
      this.reset.addEventListener("click", () => this.show(null));
    }

    show(zoom) {
      this.zoom = zoom;
      this.draw();
    }

    limits() {
      if (this.zoom) return this.zoom;
      const { log_x, log_y } = this.data, xs = [], ys = [];
      for (const { x, y, error } of this.shown)
        for (let k = 0; k < x.length; k++) {
          if (x[k] === null || y[k] === null || (log_x && x[k] <= 0) || (log_y && y[k] <= 0)) continue;
          xs.push(x[k]);
          ys.push(y[k]);
          if (error && error[k] !== null) ys.push(y[k] - error[k], y[k] + error[k]);
        }
      const joined = this.shown.every((curve) => !curve.points);
      return { x: range(xs, log_x, joined ? 0 : 0.04), y: range(ys, log_y, 0.05) };
    }

    draw() {
      this.frame.querySelector("svg")?.remove();
      this.reset.hidden = !this.zoom;
      this.width = this.frame.clientWidth || 640;
      this.height = Math.round(Math.min(420, Math.max(240, 0.55 * this.width)));
      const limits = this.limits();
      this.x = axis(...limits.x, this.data.log_x);
      this.y = axis(...limits.y, this.data.log_y);
      const vertical = ticks(this.y, this.height / 60);
      const longest = Math.max(0, ...vertical.map(([, text]) => text.length));
      this.box = { left: 34 + 6.6 * longest, top: this.data.marks.length ? 24 : 10, right: this.width - 14, bottom: this.height - 44 };
      const size = { viewBox: `0 0 ${this.width} ${this.height}`, role: "img", "aria-label": this.data.heading };
      const picture = document.createElementNS(SVG, "svg");
      for (const [key, value] of Object.entries(size)) picture.setAttribute(key, value);
      this.frame.prepend(picture);
      this.drawAxes(picture, vertical);
      this.drawCurves(picture);
      this.dot = svg(picture, "circle", { r: 4, class: "chart-dot", visibility: "hidden" });
      this.band = svg(picture, "rect", { class: "chart-band", visibility: "hidden" });
    }

    px(v) {
      const u = this.x.place(v);
      return u === null ? null : this.box.left + u * (this.box.right - this.box.left);
    }

    py(v) {
      const u = this.y.place(v);
      return u === null ? null : this.box.bottom - u * (this.box.bottom - this.box.top);
    }

    drawAxes(picture, vertical) {
      const { left, top, right, bottom } = this.box, { marks, x_label, y_label } = this.data;
      const line = (x1, y1, x2, y2, name) => svg(picture, "path", { d: `M${x1} ${y1}L${x2} ${y2}`, class: name });
      // Marks without a label of the axis stand for its ticks: high-symmetry points of a band structure.
      const horizontal = marks.length && !x_label ? [] : ticks(this.x, this.width / 90);
      for (const [v, text] of horizontal) {
        line(this.px(v), top, this.px(v), bottom, "chart-grid");
        const isWide = this.px(v) + 3.5 * text.length > this.width;
        svg(picture, "text", { x: isWide ? this.width : this.px(v), y: bottom + 16, "text-anchor": isWide ? "end" : "middle" }, text);
      }
      for (const [v, text] of vertical) {
        line(left, this.py(v), right, this.py(v), "chart-grid");
        svg(picture, "text", { x: left - 6, y: this.py(v) + 4, "text-anchor": "end" }, text);
      }
      for (const [v, name] of marks) {
        const u = this.x.place(v);
        if (u === null || u < -1e-9 || u > 1 + 1e-9) continue;
        line(this.px(v), top, this.px(v), bottom, "chart-mark");
        svg(picture, "text", { x: this.px(v), y: x_label ? top - 8 : bottom + 16, "text-anchor": "middle", class: "chart-name" }, name);
      }
      line(left, bottom, right, bottom, "chart-axis");
      line(left, top, left, bottom, "chart-axis");
      svg(picture, "text", { x: (left + right) / 2, y: this.height - 6, "text-anchor": "middle" }, x_label);
      const middle = (top + bottom) / 2;
      svg(picture, "text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, y_label);
    }

    drawCurves(picture) {
      const { left, top, right, bottom } = this.box, name = `clip-${(Chart.count = (Chart.count || 0) + 1)}`;
      const clip = svg(svg(picture, "defs", {}), "clipPath", { id: name });
      svg(clip, "rect", { x: left, y: top - 1, width: right - left, height: bottom - top + 2 });
      const inside = svg(picture, "g", { "clip-path": `url(#${name})` });
      for (const curve of this.shown) {
        const { x, y, error, points } = curve;
        let path = "", bars = "", joins = false;
        for (let k = 0; k < x.length; k++) {
          const u = this.px(x[k]), v = this.py(y[k]);
          if (u === null || v === null) {
            joins = false;
            continue;
          }
          const here = `${u.toFixed(1)} ${v.toFixed(1)}`;
          // A line of no length with round caps is a dot; so is a point without neighbours.
          path += points ? `M${here}h0` : joins ? `L${here}` : `M${here}h0`;
          joins = true;
          if (error && error[k] !== null) {
            const low = this.py(y[k] - error[k]) ?? bottom, high = this.py(y[k] + error[k]) ?? top;
            bars += `M${u.toFixed(1)} ${low.toFixed(1)}V${high.toFixed(1)}M${(u - 3).toFixed(1)} ${high.toFixed(1)}h6M${(u - 3).toFixed(1)} ${low.toFixed(1)}h6`;
          }
        }
        const kind = points ? (x.length > 500 ? "chart-points chart-many" : "chart-points") : "chart-line";
        svg(inside, "path", { d: path, class: kind, stroke: this.colour(curve), "data-curve": curve.name });
        if (bars) svg(inside, "path", { d: bars, class: "chart-error", stroke: this.colour(curve) });
      }
    }

    nearest(u, v) {
      let best = null, distance = NEAR ** 2;
      const { left, top, right, bottom } = this.box;
      for (const curve of this.shown)
        for (let k = 0; k < curve.x.length; k++) {
          const x = this.px(curve.x[k]), y = this.py(curve.y[k]);
          if (x === null || y === null || x < left - 1 || x > right + 1 || y < top - 1 || y > bottom + 1) continue;
          const d = (x - u) ** 2 + (y - v) ** 2;
          if (d < distance) [best, distance] = [{ curve, k, x, y }, d];
        }
      return best;
    }

    read(u, v) {
      const found = this.nearest(u, v);
      this.dot.setAttribute("visibility", found ? "visible" : "hidden");
      this.readout.hidden = !found;
      if (!found) return;
      const { curve, k, x, y } = found, error = curve.error && curve.error[k];
      this.dot.setAttribute("cx", x);
      this.dot.setAttribute("cy", y);
      this.dot.setAttribute("fill", this.colour(curve));
      const value = plain(curve.y[k], 7) + (error ? ` ± ${plain(error, 2)}` : "");
      this.readout.textContent = `${curve.name ? `${curve.name}: ` : ""}${value} at ${plain(curve.x[k], 7)}`;
      const half = this.readout.offsetWidth / 2;
      this.readout.style.left = `${Math.min(Math.max(x, half), this.width - half)}px`;
      this.readout.style.top = `${y < 40 ? y + 12 : y - 34}px`;
    }

    listen() {
      let start = null;
      const at = (event) => {
        const box = this.frame.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      const corners = (a, b) => {
        // A drag along one axis zooms that axis alone.
        const { left, top, right, bottom } = this.box, clamp = (v, low, high) => Math.min(Math.max(v, low), high);
        const [u, v] = [0, 1].map((k) => [Math.min(a[k], b[k]), Math.max(a[k], b[k])]);
        const xs = u[1] - u[0] < 10 ? [left, right] : u.map((p) => clamp(p, left, right));
        const ys = v[1] - v[0] < 10 ? [top, bottom] : v.map((p) => clamp(p, top, bottom));
        return { xs, ys, moved: Math.max(u[1] - u[0], v[1] - v[0]) > 10 && xs[1] > xs[0] && ys[1] > ys[0] };
      };
      this.frame.addEventListener("pointerdown", (event) => {
        if (event.button === 0) start = at(event);
      });
      this.frame.addEventListener("pointermove", (event) => {
        const [u, v] = at(event);
        if (!start) return this.read(u, v);
        const { xs, ys, moved } = corners(start, [u, v]);
        const shape = { x: xs[0], y: ys[0], width: xs[1] - xs[0], height: ys[1] - ys[0], visibility: moved ? "visible" : "hidden" };
        for (const [key, value] of Object.entries(shape)) this.band.setAttribute(key, value);
      });
      addEventListener("pointerup", (event) => {
        if (!start) return;
        const { xs, ys, moved } = corners(start, at(event)), { left, top, right, bottom } = this.box;
        start = null;
        this.band.setAttribute("visibility", "hidden");
        if (!moved) return;
        const across = xs.map((p) => this.x.value((p - left) / (right - left)));
        const up = ys.map((p) => this.y.value((bottom - p) / (bottom - top)));
        this.show({ x: across, y: up.reverse() });
      });
      addEventListener("pointercancel", () => (start = null));
      this.frame.addEventListener("pointerleave", () => this.read(-1e6, -1e6));
      this.frame.addEventListener("dblclick", () => this.show(null));
    }
  }

  for (const script of document.querySelectorAll("script[data-plot]")) new Chart(script);
})();
