//! Draws the cumulative distributions (SVG): additions above, deletions below, on one logarithmic axis.
//!
//! A curve shows the percentage of trials that were seen by each time. Vertical lines show the figures of the released backend.

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::plan::{Observer, Op, Situation};
use crate::report::Report;
use crate::stats;

/// Natural size in pixels.
const SIZE: (u32, u32) = (1200, 940);

/// Height of the area above the charts.
const HEADER: i32 = 64;

/// Width of the charts. The rest is for the names of the curves.
const CHARTS: i32 = 915;

/// Range of the axis in ms: from less than any floor to more than the slowest poll.
const AXIS: (f64, f64) = (0.02, 150_000.0);

const FONT: &str = "sans-serif";

/// A grey that differs from the colours of the curves.
const GREY: RGBColor = RGBColor(0x66, 0x66, 0x66);

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// A figure of the released backend, measured on a comparable machine.
struct Reference {
    ms: f64,
    label: &'static str,
    label_at: Side,
}

/// The side of a line.
#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Half of a picture: operations of one kind.
struct Half {
    title: &'static str,
    /// The operations, and whether their curves are dashed.
    ops: &'static [(Op, bool)],
    /// The operation whose floor is drawn.
    floor: Op,
    references: &'static [Reference],
}

const POLL: Reference = Reference {
    ms: 60_000.0,
    label: "released: fallback poll, 60 s",
    label_at: Side::Right,
};

const HALVES: [Half; 2] = [
    Half {
        title: "created → in a client's list",
        ops: &[(Op::Add, false), (Op::LinkAdd, false), (Op::LinkUp, true)],
        floor: Op::Add,
        references: &[
            Reference {
                ms: 2077.0,
                label: "released 0.8.0: p50, 2.08 s",
                label_at: Side::Right,
            },
            Reference {
                ms: 53_700.0,
                label: "released: first on a fresh boot, 53.7 s",
                label_at: Side::Left,
            },
            POLL,
        ],
    },
    Half {
        title: "deleted → gone from a client's list",
        ops: &[(Op::Del, false), (Op::LinkDel, false)],
        floor: Op::Del,
        references: &[
            Reference {
                ms: 1869.0,
                label: "released 0.8.0: p50, 1.87 s",
                label_at: Side::Right,
            },
            POLL,
        ],
    },
];

/// Colours that differ in hue and in lightness.
fn colour(situation: Situation) -> RGBColor {
    match situation {
        Situation::Present => RGBColor(0x1f, 0x77, 0xb4),
        Situation::Fresh => RGBColor(0x17, 0xbe, 0xcf),
        Situation::Recreated => RGBColor(0x2c, 0xa0, 0x2c),
        Situation::Others200 => RGBColor(0xbc, 0xa0, 0x22),
        Situation::Others1000 => RGBColor(0xff, 0x7f, 0x0e),
        Situation::Link => RGBColor(0x94, 0x67, 0xbd),
        Situation::Iproute2 => RGBColor(0x8c, 0x56, 0x4b),
        Situation::Burst1000 => RGBColor(0xd6, 0x27, 0x28),
        Situation::Sequence => RGBColor(0x63, 0x79, 0x39),
        Situation::Degraded => RGBColor(0xe3, 0x77, 0xc2),
        Situation::Silent => RGBColor(0x2b, 0x2b, 0x8c),
        Situation::Process => RGBColor(0x7f, 0x7f, 0x7f),
        Situation::Unannounced => RGBColor(0x4d, 0x2c, 0x00),
        Situation::Moved => RGBColor(0x98, 0xdf, 0x8a),
        Situation::Docker => RGBColor(0x9e, 0xda, 0xff),
        Situation::Podman => RGBColor(0xc5, 0xb0, 0xd5),
    }
}

/// Returns the points of a curve (ms, percent) in steps. Values below the axis are drawn at its beginning.
///
/// `trials` are 100 %. If changes were missed, the curve ends below that.
fn curve(samples_ns: &[i64], trials: usize) -> Vec<(f64, f64)> {
    let mut sorted = samples_ns.to_vec();
    sorted.sort_unstable();
    let percent = |seen: usize| 100.0 * seen as f64 / trials.max(sorted.len()) as f64;
    let steps = sorted.iter().enumerate().flat_map(|(before, ns)| {
        let ms = stats::milliseconds(*ns).clamp(AXIS.0, AXIS.1);
        [(ms, percent(before)), (ms, percent(before + 1))]
    });
    steps.collect()
}

/// Formats a time for the axis with the unit that gives the shortest text.
fn unit(ms: &f64) -> String {
    match *ms {
        ms if ms < 0.99 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 990.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

/// Draws a run.
pub(crate) fn draw(report: &Report) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw_on(
        &SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(),
        report,
    )
    // The error borrows the picture.
    .map_err(|error| anyhow!("{error}"))
    .context("draw the picture")?;
    // Remove trailing blanks that the drawing library writes.
    Ok(svg
        .lines()
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect())
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_on(root: &Root<'_>, report: &Report) -> Drawn {
    root.fill(&WHITE)?;
    let (header, body) = root.split_vertically(HEADER);
    let title = "How soon a network namespace is known: share of trials seen within a time";
    header.draw(&Text::new(title, (20, 14), (FONT, 24)))?;
    let machine = &report.machine;
    let about = format!(
        "{} trials, {} cpus, Linux {}, {}; from just before the system call to the arrival of the list \
         at a client on the bus",
        report.options.trials,
        machine.cpus,
        machine.kernel,
        report.date()
    );
    header.draw(&Text::new(
        about,
        (20, 42),
        (FONT, 16).into_font().color(&GREY),
    ))?;
    let (charts, names) = body.split_horizontally(CHARTS);
    for (half, area) in HALVES.iter().zip(charts.split_evenly((HALVES.len(), 1))) {
        draw_half(&area, half, report)?;
    }
    draw_names(&names, report)?;
    root.present()
}

fn draw_half(area: &Root<'_>, half: &Half, report: &Report) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption(half.title, (FONT, 19))
        .margin_left(14)
        .margin_right(8)
        .x_label_area_size(34)
        .y_label_area_size(54)
        .build_cartesian_2d((AXIS.0..AXIS.1).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(5)
        .x_max_light_lines(10)
        .y_max_light_lines(2)
        .bold_line_style(BLACK.mix(0.18))
        .light_line_style(BLACK.mix(0.05))
        .label_style((FONT, 16))
        .x_label_formatter(&unit)
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .draw()?;
    for reference in half.references {
        draw_reference(&mut chart, reference)?;
    }
    draw_curves(&mut chart, half, report)
}

fn draw_reference(chart: &mut Chart<'_>, reference: &Reference) -> Drawn {
    let Reference { ms, label, .. } = reference;
    let line = [(*ms, 0.0), (*ms, 100.0)];
    let style = GREY.stroke_width(1);
    chart.draw_series(DashedLineSeries::new(line, 5, 4, style))?;
    // The text is rotated by 90 degrees, so its top is on the left.
    let (anchor, beside) = match reference.label_at {
        Side::Left => (VPos::Bottom, -3),
        Side::Right => (VPos::Top, 3),
    };
    let along = (FONT, 15)
        .into_font()
        .transform(FontTransform::Rotate270)
        .color(&GREY)
        .pos(Pos::new(HPos::Left, anchor));
    let text = Text::new(*label, (beside, -6), along);
    chart
        .plotting_area()
        .draw(&(EmptyElement::at((*ms, 0.0)) + text))
}

fn draw_curves(chart: &mut Chart<'_>, half: &Half, report: &Report) -> Drawn {
    let floor = report.row(Situation::Present, half.floor, Observer::Floor);
    if let Some(row) = floor {
        let points = curve(&row.samples_ns, row.n + row.missed);
        chart.draw_series(LineSeries::new(points, BLACK.stroke_width(2)))?;
    }
    for situation in Situation::ALL {
        let trials = situation.trials(report.options.trials);
        let trials = usize::try_from(trials).unwrap_or(usize::MAX);
        let style = colour(situation).stroke_width(2);
        for (op, dashed) in half.ops {
            let Some(row) = report.row(situation, *op, Observer::Client) else {
                continue;
            };
            let points = curve(&row.samples_ns, trials);
            if *dashed {
                chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?;
            } else {
                chart.draw_series(LineSeries::new(points, style))?;
            }
        }
    }
    Ok(())
}

/// The names of the curves that are drawn, with their colours.
fn draw_names(area: &Root<'_>, report: &Report) -> Drawn {
    let mut names = vec![("the kernel's floor", BLACK, false)];
    for situation in Situation::ALL {
        if report.rows.iter().any(|row| row.situation == situation) {
            names.push((situation.title(), colour(situation), false));
            if situation == Situation::Link {
                names.push(("… brought up", colour(situation), true));
            }
        }
    }
    let mut y = 60;
    for (name, colour, dashed) in names {
        let line = [(6, y), (34, y)];
        let style = colour.stroke_width(3);
        if dashed {
            area.draw(&DashedPathElement::new(line, 6, 4, style))?;
        } else {
            area.draw(&PathElement::new(line, style))?;
        }
        let text = (FONT, 16).into_font().color(&BLACK);
        let text = text.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name, (42, y), text))?;
        y += 27;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report_of;

    #[test]
    fn a_curve_rises_in_steps_to_the_percentage_seen() {
        let expected = [
            (1.0, 0.0),
            (1.0, 25.0),
            (2.0, 25.0),
            (2.0, 50.0),
            (4.0, 50.0),
            (4.0, 75.0),
        ];
        assert_eq!(curve(&[4_000_000, 1_000_000, 2_000_000], 4), expected);
        assert_eq!(curve(&[], 4), []);
    }

    #[test]
    fn values_outside_the_axis_are_drawn_at_its_ends() {
        let points = curve(&[-3, i64::MAX], 2);
        let times: Vec<_> = points.into_iter().map(|(ms, _)| ms).collect();
        assert_eq!(times, [AXIS.0, AXIS.0, AXIS.1, AXIS.1]);
    }

    #[test]
    fn times_have_short_names() {
        let names = [0.099_999_9, 1.0, 100.000_01, 1000.0, 100_000.0].map(|ms| unit(&ms));
        assert_eq!(names, ["100 µs", "1 ms", "100 ms", "1 s", "100 s"]);
    }

    #[test]
    fn a_picture_shows_what_was_measured() {
        let row = |situation, op| {
            (
                (situation, op, Observer::Client),
                &[1_000_000, 2_000_000][..],
            )
        };
        let svg = draw(&report_of(&[
            row(Situation::Present, Op::Add),
            row(Situation::Link, Op::LinkUp),
        ]))
        .unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let shows = |text: &str| svg.contains(text);
        assert!(shows(Situation::Present.title()) && shows("brought up"));
        assert!(!shows(Situation::Silent.title()));
        for half in HALVES {
            for reference in half.references {
                assert!(shows(reference.label), "{}", reference.label);
            }
        }
    }
}
