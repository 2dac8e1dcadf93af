//! Shares of requests: Istio writes percents, Envoy fractions.

use model::fraction::Fraction;

/// Parts that a percent with a fraction is counted in.
const MILLION: u32 = 1_000_000;

/// `percent` of requests. Whole percents stay whole.
pub(super) fn of_percent(percent: f64) -> Fraction {
    let percent = if percent.is_finite() { percent.clamp(0.0, 100.0) } else { 0.0 };
    // Neither can be too large after the clamp.
    match percent.fract() == 0.0 {
        true => Fraction { numerator: percent as u32, denominator: 100 },
        false => Fraction {
            numerator: (percent * f64::from(MILLION) / 100.0).round() as u32,
            denominator: MILLION,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_with_a_fraction_is_counted_in_a_million() {
        assert_eq!(of_percent(100.0), Fraction::ALL);
        assert_eq!(of_percent(0.1), Fraction { numerator: 1000, denominator: MILLION });
        assert_eq!(of_percent(250.0), Fraction::ALL);
        assert_eq!(of_percent(f64::NAN).numerator, 0);
    }
}
