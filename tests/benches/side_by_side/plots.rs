//! What is plotted of the figures: how long single operations take, and how many are answered by how many are under
//! way.

use crate::plot::{Axis, Panel, figure};
use crate::report::{Columns, Row};
use crate::workload::DEPTHS;

/// Points of a curve.
const POINTS: usize = 100;

/// For each row the share of operations that took no longer than so much.
pub fn latency(title: &str, columns: &Columns, rows: &[Row]) -> String {
    let panels: Vec<_> =
        rows.iter().filter(|row| row.times.iter().all(|times| !times.is_empty())).map(shares).collect();
    figure(&format!("What one operation takes: {title}"), &columns.names(), &panels)
}

fn shares(row: &Row) -> Panel {
    let curves: Vec<_> = row.times.iter().map(|times| share(times)).collect();
    let micros = curves.iter().flatten().map(|(micros, _)| *micros);
    Panel {
        title: row.name.clone(),
        x: Axis::logarithmic("µs", micros),
        y: Axis::linear("% of operations", &[0.0, 25.0, 50.0, 75.0, 100.0]),
        curves,
    }
}

/// Without the slowest and the fastest half per cent.
fn share(times: &[f32]) -> Vec<(f64, f64)> {
    let mut times = times.to_vec();
    times.sort_by(f32::total_cmp);
    let at = |share: f64| f64::from(times[(share * (times.len() - 1) as f64) as usize]) * 1e6;
    let share = |point: usize| 0.005 + 0.99 * point as f64 / POINTS as f64;
    (0..=POINTS).map(share).map(|share| (at(share), share * 100.0)).collect()
}

/// A panel of rows that differ in depth.
pub fn depth(title: &str, rows: &[Row]) -> Panel {
    let rates: Vec<_> = rows.iter().map(|row| row.medians(|sample| row.unit.of(sample.time))).collect();
    let curve = |column| DEPTHS.iter().zip(&rates).map(|(&depth, rates)| (f64::from(depth), rates[column])).collect();
    let depths = DEPTHS.map(f64::from);
    let x = Axis { ticks: depths.into(), ..Axis::logarithmic("requests under way", depths.into_iter()) };
    Panel {
        title: title.into(),
        x,
        y: Axis::logarithmic("thousands per second", rates.iter().flatten().copied()),
        curves: (0..rates[0].len()).map(curve).collect(),
    }
}
