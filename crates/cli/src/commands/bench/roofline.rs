//! A roofline plot: what cases reach, under what the machine could do at their intensity.
//!
//! Both axes are logarithmic. A case lies at its operations for each byte of the packed layer, and at the operations a
//! second that it reached. Two lines are above all of them: memory, which rises with the intensity, and multiplication,
//! one level for each type. After Williams, Waterman and Patterson, Roofline, CACM 52 (2009).

use std::collections::BTreeSet;
use std::fmt::Write;

use gptq_core::tensor::DType;

use super::report::{Benchmark, Case};

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 560.0;
/// What lies around the plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [76.0, 54.0, 210.0, 62.0];
/// Marks of shapes, in the order in which shapes come.
const MARKS: [fn(f64, f64) -> String; 4] = [circle, square, triangle, diamond];

/// A document of its own, for any viewer.
pub(super) fn svg(benchmark: &Benchmark) -> String {
    let axes = Axes::around(benchmark);
    let mut out = String::new();
    // Writing to a string cannot fail, here and below.
    _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>"
    );
    let (left, top) = (MARGIN[0], MARGIN[1]);
    _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n<text x=\"{left}\" y=\"42\" fill=\"#555\">reads {:.1} \
         GB/s; weights {}</text>",
        escaped(&benchmark.machine),
        benchmark.limits.read_bytes_per_second * 1e-9,
        if benchmark.warm { "as warm as a cache keeps them" } else { "from memory" },
    );
    axes.draw(&mut out);
    let dtypes: Vec<DType> = DType::ALL
        .into_iter()
        .filter(|dtype| benchmark.cases.iter().any(|c| c.measured.dtype == *dtype))
        .collect();
    for &dtype in &dtypes {
        roof(benchmark, dtype, &axes, &mut out);
    }
    let shapes: BTreeSet<(usize, usize)> = benchmark.cases.iter().map(shape).collect();
    let mark_of = |of: (usize, usize)| {
        let index = shapes.iter().position(|shape| *shape == of).unwrap_or(0);
        MARKS.get(index % MARKS.len()).copied().unwrap_or(circle)
    };
    for case in &benchmark.cases {
        let [x, y] = axes.place(case.intensity(), case.operations_per_second);
        let of = &case.measured;
        _ = writeln!(
            out,
            "<g fill=\"{}\" fill-opacity=\".75\"><title>{}{}x{}, {} bits, {}, M = {}: {:.4} ms, {:.0} GFLOP/s, {:.0} % of \
             the limit</title>{}</g>",
            colour(of.dtype),
            of.backend.map_or_else(String::new, |backend| format!("{backend}, ")),
            of.in_features,
            of.out_features,
            of.bits,
            of.dtype,
            of.rows,
            of.median_seconds * 1e3,
            case.operations_per_second * 1e-9,
            case.of_limit * 100.0,
            mark_of(shape(case))(x, y),
        );
    }
    let x = WIDTH - MARGIN[2] + 18.0;
    let mut y = top + 10.0;
    for &dtype in &dtypes {
        _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">x in {dtype}</text>",
            x - 5.0,
            y - 9.0,
            colour(dtype),
            x + 14.0
        );
        y += 20.0;
    }
    y += 8.0;
    for &(k, n) in &shapes {
        let mark = mark_of((k, n))(x, y - 4.0);
        _ = writeln!(
            out,
            "<g fill=\"#555\">{mark}</g><text x=\"{}\" y=\"{y}\">K {k}, N {n}</text>",
            x + 14.0
        );
        y += 20.0;
    }
    out.push_str("</svg>\n");
    out
}

/// The limits of a type: along memory to where multiplication takes longer, and on.
fn roof(benchmark: &Benchmark, dtype: DType, axes: &Axes, out: &mut String) {
    let (read, multiply) =
        (benchmark.limits.read_bytes_per_second, benchmark.limits.operations_per_second(dtype));
    let [from, to] = axes.x;
    let points = [from, multiply / read, to]
        .map(|intensity| axes.place(intensity.clamp(from, to), (intensity * read).min(multiply)))
        .map(|[x, y]| format!("{x:.1},{y:.1}"));
    _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
        points.join(" "),
        colour(dtype)
    );
    let [x, y] = axes.place(to, multiply);
    _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{}\">{:.0} GFLOP/s in {dtype}</text>",
        x - 4.0,
        y - 5.0,
        colour(dtype),
        multiply * 1e-9
    );
}

/// What lies where, from the least to the largest value of each axis.
struct Axes {
    x: [f64; 2],
    y: [f64; 2],
}

impl Axes {
    /// Whole powers of ten around all cases and limits.
    fn around(benchmark: &Benchmark) -> Self {
        let cases = || benchmark.cases.iter();
        let tops = cases().map(|case| benchmark.limits.operations_per_second(case.measured.dtype));
        let x = decades(cases().map(Case::intensity));
        let y = decades(cases().map(|case| case.operations_per_second).chain(tops));
        Self { x, y }
    }

    fn place(&self, x: f64, y: f64) -> [f64; 2] {
        let along = |value: f64, [from, to]: [f64; 2]| {
            (value.max(f64::MIN_POSITIVE).log10() - from.log10()) / (to.log10() - from.log10())
        };
        let [left, top, right, bottom] = MARGIN;
        [
            left + along(x, self.x) * (WIDTH - left - right),
            HEIGHT - bottom - along(y, self.y) * (HEIGHT - top - bottom),
        ]
    }

    fn draw(&self, out: &mut String) {
        let [[left, bottom], [right, top]] =
            [self.place(self.x[0], self.y[0]), self.place(self.x[1], self.y[1])];
        for value in powers(self.x) {
            let [x, _] = self.place(value, self.y[0]);
            _ = writeln!(
                out,
                "<path d=\"M{x:.1} {bottom:.1}V{top:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                number(value)
            );
        }
        for value in powers(self.y) {
            let [_, y] = self.place(self.x[0], value);
            _ = writeln!(
                out,
                "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                number(value * 1e-9)
            );
        }
        let (middle_x, middle_y) = (left.midpoint(right), top.midpoint(bottom));
        _ = writeln!(
            out,
            "<text x=\"{middle_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">FLOP for each byte of the packed layer</text>\n\
             <text transform=\"translate(22 {middle_y:.1}) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>",
            HEIGHT - 18.0
        );
    }
}

/// Powers of ten that hold all values between them.
fn decades(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut range = [f64::INFINITY, 0.0f64];
    for value in values.filter(|value| value.is_finite() && *value > 0.0) {
        range = [range[0].min(value), range[1].max(value)];
    }
    if range[1] == 0.0 {
        return [1.0, 10.0];
    }
    let [low, high] = [range[0].log10().floor(), range[1].log10().ceil()];
    [10f64.powf(low), 10f64.powf(high.max(low + 1.0))]
}

fn powers([from, to]: [f64; 2]) -> impl Iterator<Item = f64> {
    // Of rates that a machine can reach there are few decades.
    std::iter::successors(Some(from), |value| Some(value * 10.0))
        .take(40)
        .take_while(move |value| *value <= to * 1.001)
}

fn number(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

fn shape(case: &Case) -> (usize, usize) {
    (case.measured.in_features, case.measured.out_features)
}

fn colour(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "#1f6f8b",
        DType::F16 => "#7b5ea7",
        DType::BF16 => "#c0562f",
    }
}

fn circle(x: f64, y: f64) -> String {
    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>")
}

fn square(x: f64, y: f64) -> String {
    format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>", x - 4.5, y - 4.5)
}

fn triangle(x: f64, y: f64) -> String {
    format!("<path d=\"M{x:.1} {:.1}l6 10h-12z\"/>", y - 6.0)
}

fn diamond(x: f64, y: f64) -> String {
    format!("<path d=\"M{x:.1} {:.1}l6 6l-6 6l-6 -6z\"/>", y - 6.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::example;
    use super::*;

    #[test]
    fn a_plot_has_a_mark_for_each_case_inside_its_axes_and_a_roof_for_each_type() {
        let mut benchmark = example();
        benchmark.machine = "A & B <C>".into();
        let text = svg(&benchmark);
        assert_eq!(text.matches("<title>").count(), 2, "{text}");
        assert_eq!(text.matches("<polyline").count(), 2, "{text}");
        assert!(
            text.contains("A &amp; B &lt;C>") && !text.contains("NaN") && !text.contains("inf"),
            "{text}"
        );
        let axes = Axes::around(&benchmark);
        for case in &benchmark.cases {
            let [x, y] = axes.place(case.intensity(), case.operations_per_second);
            assert!((MARGIN[0]..=WIDTH - MARGIN[2]).contains(&x), "{x}");
            assert!((MARGIN[1]..=HEIGHT - MARGIN[3]).contains(&y), "{y}");
        }
    }

    #[test]
    fn axes_are_whole_powers_of_ten() {
        assert_eq!(decades([3.0, 40.0].into_iter()), [1.0, 100.0]);
        assert_eq!(decades([5.0].into_iter()), [1.0, 10.0]);
        assert_eq!(decades([f64::NAN, 0.0].into_iter()), [1.0, 10.0]);
        assert_eq!(powers([0.1, 100.0]).count(), 4);
    }

    #[test]
    fn nothing_measured_is_a_plot_without_marks() {
        let mut benchmark = example();
        benchmark.cases.clear();
        assert!(svg(&benchmark).ends_with("</svg>\n"));
    }
}
