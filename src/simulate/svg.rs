//! The report as a plot: regret by rounds, a curve with its band for each policy.
//!
//! Written by hand, without scripts and fonts of its own, so that it can stand in a document; its colours follow the reader's preference
//! for light or dark.

use super::number::{estimate, plain, thousands};
use super::summary::{Point, Summary};
use super::text::names;

const WIDTH: f64 = 760.0;
const PLOT_HEIGHT: f64 = 360.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 32.0;
const TOP: f64 = 44.0;
const BELOW: f64 = 52.0;
/// Height of a line of the legend.
const LINE: f64 = 20.0;
/// Ticks that an axis has, about.
const TICKS: f64 = 6.0;

/// Colours of the curves, on light and on dark (Okabe and Ito's, darkened and lightened to be seen on either).
const COLORS: [(&str, &str); 6] = [
    ("#0067a5", "#5cb8f5"),
    ("#c24e00", "#ff9a57"),
    ("#00785a", "#3fd0a4"),
    ("#a8457f", "#ee9cc8"),
    ("#8a6d00", "#e8c547"),
    ("#555555", "#b5b5b5"),
];

/// What is drawn beside the curves.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// Rounds from which the world is another; drawn as vertical lines.
    pub changes: &'a [u64],
}

/// The regret of several policies in one world as an SVG document.
pub fn plot(summaries: &[Summary], frame: &Frame<'_>) -> String {
    let horizon = summaries
        .iter()
        .map(|summary| summary.horizon)
        .max()
        .unwrap_or(1)
        .max(1);
    let ends = summaries
        .iter()
        .flat_map(|summary| &summary.curve)
        .map(|point| band(point).1);
    let y = Axis::to(ends.fold(0.0, f64::max), TOP + PLOT_HEIGHT, TOP);
    let x = Axis {
        end: horizon as f64,
        ..Axis::to(horizon as f64, LEFT, WIDTH - RIGHT)
    };
    let height = TOP + PLOT_HEIGHT + BELOW + LINE * summaries.len() as f64 + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">\n{}\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"26\">{}</text>\n",
        escape(frame.title),
        style(),
        escape(frame.title),
    );
    axes(&mut svg, &x, &y);
    for change in frame.changes.iter().filter(|change| **change < horizon) {
        let at = x.place(*change as f64);
        svg.push_str(&format!(
            "<line class=\"change\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>\n",
            TOP + PLOT_HEIGHT
        ));
    }
    let names = names(summaries);
    for (index, summary) in summaries.iter().enumerate() {
        curve(&mut svg, summary, index, (&x, &y));
    }
    for (index, (summary, name)) in summaries.iter().zip(&names).enumerate() {
        let line = TOP + PLOT_HEIGHT + BELOW + LINE * (index as f64 + 0.5);
        let (color, dash) = class(index);
        svg.push_str(&format!(
            "<line class=\"curve {color} {dash}\" x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{}: {}</text>\n",
            LEFT + 28.0,
            LEFT + 36.0,
            line + 4.0,
            escape(name),
            escape(&estimate(&summary.regret.estimate)),
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The style sheet, with the colours of both schemes.
fn style() -> String {
    let mut light = String::new();
    let mut dark = String::new();
    for (index, (on_light, on_dark)) in COLORS.iter().enumerate() {
        light.push_str(&format!(".c{index}{{stroke:{on_light};fill:{on_light}}}"));
        dark.push_str(&format!(".c{index}{{stroke:{on_dark};fill:{on_dark}}}"));
    }
    format!(
        "<style>\n\
         text{{font:12px system-ui,sans-serif;fill:#24292f}}.title{{font-size:14px;font-weight:600}}\n\
         .paper{{fill:#fff}}.grid{{stroke:#d8dee4}}.axis{{stroke:#57606a}}.change{{stroke:#57606a;stroke-dasharray:2 4}}\n\
         {light}\n\
         .curve{{fill:none;stroke-width:2}}.band{{stroke:none;fill-opacity:.16}}.d1{{stroke-dasharray:8 4}}.d2{{stroke-dasharray:2 3}}\n\
         @media (prefers-color-scheme:dark){{\n\
         text{{fill:#e6edf3}}.paper{{fill:#0d1117}}.grid{{stroke:#2d333b}}.axis,.change{{stroke:#9198a1}}\n\
         {dark}\n\
         .curve{{fill:none}}.band{{stroke:none;fill-opacity:.24}}\n\
         }}\n</style>\n"
    )
}

/// The colour of a curve, and its dashes when the colours are used up.
fn class(index: usize) -> (String, String) {
    let round = (index / COLORS.len()) % 3;
    (format!("c{}", index % COLORS.len()), format!("d{round}"))
}

/// Mean less and plus two standard errors.
fn band(point: &Point) -> (f64, f64) {
    let error = 2.0 * point.estimate.se.unwrap_or(0.0);
    (
        (point.estimate.mean - error).max(0.0),
        point.estimate.mean + error,
    )
}

fn curve(svg: &mut String, summary: &Summary, index: usize, (x, y): (&Axis, &Axis)) {
    let place = |t: f64, value: f64| format!("{:.1},{:.1}", x.place(t), y.place(value));
    let (color, dash) = class(index);
    let origin = place(0.0, 0.0);
    let points = |value: fn(&Point) -> f64| -> Vec<String> {
        let points = summary.curve.iter();
        points
            .map(|point| place(point.t as f64, value(point)))
            .collect()
    };
    let upper = points(|point| band(point).1);
    let mut lower = points(|point| band(point).0);
    lower.reverse();
    svg.push_str(&format!(
        "<polygon class=\"band {color}\" points=\"{origin} {} {}\"/>\n\
         <polyline class=\"curve {color} {dash}\" points=\"{origin} {}\"/>\n",
        upper.join(" "),
        lower.join(" "),
        points(|point| point.estimate.mean).join(" "),
    ));
}

fn axes(svg: &mut String, x: &Axis, y: &Axis) {
    let (bottom, right) = (TOP + PLOT_HEIGHT, WIDTH - RIGHT);
    for tick in y.ticks() {
        let at = y.place(tick);
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            at + 4.0,
            y.label(tick)
        ));
    }
    for tick in x.ticks() {
        let at = x.place(tick);
        svg.push_str(&format!(
            "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{:.1}\"/>\n\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            bottom + 5.0,
            bottom + 19.0,
            x.label(tick)
        ));
    }
    let middle = TOP + 0.5 * PLOT_HEIGHT;
    svg.push_str(&format!(
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\n\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom}\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">rounds</text>\n\
         <text transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">regret, in units of reward (band: ±2 standard errors)</text>\n",
        0.5 * (LEFT + right),
        bottom + 38.0,
    ));
}

/// A linear axis from 0.
#[derive(Debug, Clone, Copy)]
struct Axis {
    end: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// From 0 to a round number that is at least `most`, drawn from `from` to `to`.
    fn to(most: f64, from: f64, to: f64) -> Self {
        let most = if most > 0.0 && most.is_finite() {
            most
        } else {
            1.0
        };
        let rough = most / TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|digit| digit * power)
            .find(|step| *step >= rough * (1.0 - 1e-9))
            .unwrap_or(10.0 * power);
        Self {
            end: step * (most / step * (1.0 - 1e-9)).ceil(),
            step,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * (value / self.end)
    }

    fn ticks(&self) -> Vec<f64> {
        let count = (self.end / self.step + 1e-9).floor() as u32;
        (0..=count)
            .map(|index| f64::from(index) * self.step)
            .collect()
    }

    fn label(&self, tick: f64) -> String {
        if tick == 0.0 {
            "0".to_owned()
        } else if self.step >= 1.0 && tick < 1e15 {
            thousands(tick.round() as u64)
        } else {
            plain(tick)
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
