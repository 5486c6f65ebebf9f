//! Plots, as SVG: panels beside each other, each with a curve for every server.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// As many as there are columns in a table.
const COLOURS: [&str; 5] = ["#d4351c", "#1d70b8", "#5694ca", "#00703c", "#8a8f94"];
/// Panels in a row.
const ACROSS: usize = 3;
/// Width and height of a panel with its labels, and the room for those.
const PANEL: (f64, f64) = (330.0, 250.0);
const LEFT: f64 = 56.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;
/// Height of the title and the legend.
const HEAD: f64 = 56.0;

/// One of the two directions.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: &'static str,
    /// Where the labelled lines are, in order; the first and the last are the ends of a linear axis.
    pub ticks: Vec<f64>,
    /// What it shows of.
    pub range: RangeInclusive<f64>,
    /// Whether equal distances are equal ratios.
    pub logarithmic: bool,
}

impl Axis {
    /// From end to end, with lines at these places.
    pub fn linear(label: &'static str, ticks: &[f64]) -> Self {
        let (Some(&start), Some(&end)) = (ticks.first(), ticks.last()) else { panic!("no ticks") };
        Self { label, ticks: ticks.into(), range: start..=end, logarithmic: false }
    }

    /// As wide as these values need, with lines at 1, 2 and 5 times the powers of ten, or fewer where they are many.
    pub fn logarithmic(label: &'static str, values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(v), most.max(v)));
        let range = least / 1.1..=most * 1.1;
        let decades = (most / least).log10();
        let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = range.start().log10().floor() as i32..=range.end().log10().ceil() as i32;
        let ticks = powers.flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        let ticks = ticks.filter(|tick| range.contains(tick)).collect();
        Self { label, ticks, range, logarithmic: true }
    }

    /// Where a value is, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let of = |value: f64| if self.logarithmic { value.log10() } else { value };
        let (start, end) = (of(*self.range.start()), of(*self.range.end()));
        ((of(value) - start) / (end - start)).clamp(0.0, 1.0)
    }
}

/// One diagram.
pub struct Panel {
    /// What it is about.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// A curve for each name of the legend.
    pub curves: Vec<Vec<(f64, f64)>>,
}

impl Panel {
    fn draw(&self, svg: &mut String, left: f64, top: f64) -> std::fmt::Result {
        let (width, height) = (PANEL.0 - LEFT - RIGHT, PANEL.1 - TOP - BOTTOM);
        let (x0, y0) = (left + LEFT, top + TOP + height);
        let across = |value| x0 + self.x.place(value) * width;
        let up = |value| y0 - self.y.place(value) * height;
        writeln!(svg, "<text class='title' x='{x0}' y='{}'>{}</text>", top + TOP - 9.0, self.title)?;
        for &tick in &self.x.ticks {
            let x = across(tick);
            writeln!(svg, "<path class='grid' d='M{x:.1} {y0:.1}v-{height}'/>")?;
            writeln!(svg, "<text class='x' x='{x:.1}' y='{:.1}'>{tick}</text>", y0 + 15.0)?;
        }
        for &tick in &self.y.ticks {
            let y = up(tick);
            writeln!(svg, "<path class='grid' d='M{x0:.1} {y:.1}h{width}'/>")?;
            writeln!(svg, "<text class='y' x='{:.1}' y='{:.1}'>{tick}</text>", x0 - 5.0, y + 4.0)?;
        }
        writeln!(svg, "<text class='x' x='{:.1}' y='{:.1}'>{}</text>", x0 + width / 2.0, y0 + 32.0, self.x.label)?;
        let (x, y) = (left + 13.0, y0 - height / 2.0);
        writeln!(svg, "<text class='x' transform='translate({x:.1} {y:.1}) rotate(-90)'>{}</text>", self.y.label)?;
        for (curve, colour) in self.curves.iter().zip(COLOURS).rev() {
            let points: Vec<_> = curve.iter().map(|&(x, y)| format!("{:.1},{:.1}", across(x), up(y))).collect();
            writeln!(svg, "<polyline class='curve' stroke='{colour}' points='{}'/>", points.join(" "))?;
        }
        Ok(())
    }
}

/// The whole picture.
pub fn figure(title: &str, legend: &[&str], panels: &[Panel]) -> String {
    let mut svg = String::new();
    draw(&mut svg, title, legend, panels).expect("a string");
    svg
}

fn draw(svg: &mut String, title: &str, legend: &[&str], panels: &[Panel]) -> std::fmt::Result {
    let across = panels.len().clamp(1, ACROSS);
    let width = PANEL.0 * across as f64;
    let height = HEAD + PANEL.1 * panels.len().div_ceil(across) as f64;
    writeln!(
        svg,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}'>"
    )?;
    writeln!(
        svg,
        "<style>text {{ font: 11px sans-serif; fill: #222 }} .head {{ font-size: 15px; font-weight: bold }} \
         .title {{ font-weight: bold }} .x {{ text-anchor: middle }} .y {{ text-anchor: end }} \
         .grid {{ stroke: #ddd }} .curve {{ fill: none; stroke-width: 1.6 }}</style>"
    )?;
    writeln!(svg, "<rect width='{width}' height='{height}' fill='white'/>")?;
    writeln!(svg, "<text class='head' x='{LEFT}' y='22'>{title}</text>")?;
    let mut x = LEFT;
    for (name, colour) in legend.iter().zip(COLOURS) {
        writeln!(
            svg,
            "<path d='M{x} 41h18' stroke='{colour}' stroke-width='3'/><text x='{}' y='45'>{name}</text>",
            x + 23.0
        )?;
        x += 45.0 + 6.2 * name.len() as f64;
    }
    for (i, panel) in panels.iter().enumerate() {
        panel.draw(svg, PANEL.0 * (i % across) as f64, HEAD + PANEL.1 * (i / across) as f64)?;
    }
    writeln!(svg, "</svg>")
}
