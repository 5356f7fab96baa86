//! Line plots with a logarithmic x axis, as SVG.

use std::path::Path;

use plotters::prelude::*;

/// One line of a plot.
pub(crate) struct PlotLine {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLORS: [RGBColor; 4] =
    [RGBColor(130, 130, 130), RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(230, 160, 0)];

const FONT: (&str, u32) = ("sans-serif", 15);

/// Draws the lines, with names for both axes. `room` is where the legend fits.
pub(crate) fn plot(path: &Path, x_name: &str, y_name: &str, lines: &[PlotLine], room: SeriesLabelPosition) {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(_, y)| y.is_finite());
    let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let y_max = points().map(|(_, y)| *y).fold(1.0, f64::max);
    let area = SVGBackend::new(path, (720, 400)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_right(48)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d((1.0..x_max).log_scale(), 0.0..y_max * 1.1)
        .unwrap();
    let whole = |number: &f64| crate::figures::grouped(*number);
    chart
        .configure_mesh()
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_desc(x_name)
        .y_desc(y_name)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .light_line_style(TRANSPARENT)
        .draw()
        .unwrap();
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let points: Vec<(f64, f64)> = line.points.iter().copied().filter(|(_, y)| y.is_finite()).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))
            .unwrap()
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .label_font(FONT)
        .position(room)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()
        .unwrap();
    area.present().unwrap();
}
