// The history as a picture (uPlot); loaded when it is first drawn.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { Dashboard } from "./api";
import { text } from "./text";

const names = ["sent", "deferred", "bounced", "waiting"] as const;

function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function draw(box: HTMLElement, h: Dashboard["history"], span: number): () => void {
  const t = text.dashboard;
  const axis = {
    stroke: color("--text"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1 },
  };
  const options: uPlot.Options = {
    width: box.clientWidth || 600,
    height: 220,
    cursor: { points: { size: 6 } },
    scales: {
      x: { range: () => [Date.now() / 1000 - span, Date.now() / 1000] },
      y: { range: (_u, _min, max) => [0, Math.max(1, max * 1.1)] },
    },
    axes: [axis, { ...axis, size: 60 }],
    series: [
      {},
      ...names.map((n) => ({ label: t[n], stroke: color(`--${n}`), width: 2, points: { show: h.at.length < 3 } })),
    ],
  };
  const plot = new uPlot(options, [h.at, h.sent, h.deferred, h.bounced, h.waiting], box);
  const resize = () => plot.setSize({ width: box.clientWidth, height: 220 });
  addEventListener("resize", resize);
  return () => {
    removeEventListener("resize", resize);
    plot.destroy();
  };
}
