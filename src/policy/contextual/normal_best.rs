//! P(arm is best) for independent normals, fast enough for every request: `P_i = ∫ f_i(t) ∏_{j≠i} F_j(t) dt`.
//!
//! Gauss–Legendre over panels at most three standard deviations wide of the narrowest normal that is still undecided, from where the product of all F leaves 0
//! to where the last F reaches 1. As arms reach 1 they drop out and panels widen, so a narrow and a wide
//! posterior cost little more than two alike. exp and the normal distribution function are polynomials without branches,
//! which the compiler vectorises, and only +, −, ×, ÷ and √, so the same bits come out on every platform. Against exact integrals it errs by less than 1e-6 (1e-8 for ten arms or fewer).
//!
//! Not here: other distributions ([`best`](crate::policy::best), which is exact to 1e-9 and far slower).

use std::f64::consts::{LN_2, LOG2_E};

/// Nodes of a panel.
const NODES: usize = 10;
/// Width of a panel, in standard deviations of the narrowest arm in it.
const PANEL: f64 = 3.0;
/// Beyond this many standard deviations an arm has nothing to win (1e-9).
const REACH: f64 = 6.0;
/// Numbers beyond this are not compared: their squares would be infinite.
const GREATEST: f64 = 1e150;
/// (k, z) with Φ(−z)ᵏ = 1e-9: where k arms lie z deviations above, the greatest certainly lies above.
const DEPTHS: [(usize, f64); 13] = [
    (1, REACH),
    (2, 4.001),
    (3, 3.091),
    (4, 2.535),
    (6, 1.858),
    (8, 1.44),
    (12, 0.924),
    (16, 0.602),
    (24, 0.198),
    (32, -0.058),
    (48, -0.383),
    (64, -0.592),
    (96, -0.862),
];
/// A narrower normal than this part of the widest is taken as that wide.
const NARROWEST: f64 = 1e-6;

/// Nodes on [-1, 1] and weights of the ten-point Gauss–Legendre rule.
const RULE: [[f64; NODES]; 2] = [
    [
        -0.973_906_528_517_171_7,
        -0.865_063_366_688_984_5,
        -0.679_409_568_299_024_4,
        -0.433_395_394_129_247_2,
        -0.148_874_338_981_631_22,
        0.148_874_338_981_631_22,
        0.433_395_394_129_247_2,
        0.679_409_568_299_024_4,
        0.865_063_366_688_984_5,
        0.973_906_528_517_171_7,
    ],
    [
        0.066_671_344_308_688_14,
        0.149_451_349_150_580_6,
        0.219_086_362_515_982_04,
        0.269_266_719_309_996_35,
        0.295_524_224_714_752_87,
        0.295_524_224_714_752_87,
        0.269_266_719_309_996_35,
        0.219_086_362_515_982_04,
        0.149_451_349_150_580_6,
        0.066_671_344_308_688_14,
    ],
];

/// Memory for [`probability_best`].
#[derive(Debug, Default)]
pub struct Workspace {
    /// The arms that are still undecided.
    arms: Vec<Arm>,
    /// The panel at hand, for each of them.
    curves: Vec<Curve>,
}

#[derive(Debug, Clone, Copy)]
struct Arm {
    index: usize,
    /// From the greatest mean.
    mean: f64,
    deviation: f64,
    /// Where its distribution function has reached 1.
    end: f64,
}

/// At the nodes of a panel.
#[derive(Debug, Clone, Copy)]
struct Curve {
    density: [f64; NODES],
    /// Distribution function.
    below: [f64; NODES],
    /// Product of the distribution functions of the arms before this one.
    before: [f64; NODES],
}

/// Writes the probability of each normal to be the greatest into `best`, which sums to 1 within rounding. Deviations of 0 or far below the rest's count as
/// very small ones; equal arms share equally. Never NaN: if some number is not finite or beyond 1e150, all arms share.
pub fn probability_best(
    means: &[f64],
    deviations: &[f64],
    workspace: &mut Workspace,
    best: &mut [f64],
) {
    let (mut top, mut widest, mut sound) = (f64::NEG_INFINITY, 0.0_f64, true);
    for (mean, deviation) in means.iter().zip(deviations) {
        sound &= mean.abs() < GREATEST && deviation.abs() < GREATEST;
        top = top.max(*mean);
        widest = widest.max(*deviation);
    }
    if !sound {
        best.fill(1.0 / best.len() as f64);
    } else if widest < f64::MIN_POSITIVE {
        super::model::share_greatest(means, best);
    } else {
        let lowest = workspace.enter(means, deviations, (top, widest));
        best.fill(0.0);
        workspace.integrate(lowest, best);
        let sum: f64 = best.iter().sum();
        for share in best {
            *share /= sum;
        }
    }
}

impl Workspace {
    /// Takes the arms in that can win, and says from where on they compete.
    fn enter(&mut self, means: &[f64], deviations: &[f64], (top, widest): (f64, f64)) -> f64 {
        self.arms.clear();
        for (index, (mean, deviation)) in means.iter().zip(deviations).enumerate() {
            let deviation = deviation.max(widest * NARROWEST);
            let mean = mean - top;
            self.arms.push(Arm {
                index,
                mean,
                deviation,
                end: mean + REACH * deviation,
            });
        }
        let order = |arm: &Arm| arm.mean - 2.0 * arm.deviation;
        self.arms
            .sort_unstable_by(|a, b| order(b).total_cmp(&order(a)));
        let mut lowest = f64::NEG_INFINITY;
        for (count, reach) in DEPTHS {
            let Some(leading) = self.arms.get(..count) else {
                break;
            };
            let starts = leading.iter().map(|arm| arm.mean - reach * arm.deviation);
            lowest = lowest.max(starts.fold(f64::INFINITY, f64::min));
        }
        self.arms.retain(|arm| arm.end > lowest);
        lowest
    }

    fn integrate(&mut self, lowest: f64, best: &mut [f64]) {
        let highest = self.arms.iter().map(|arm| arm.end);
        let highest = highest.fold(f64::NEG_INFINITY, f64::max);
        let mut left = lowest;
        if let [a, b] = self.arms.as_slice() {
            let spread = (a.deviation * a.deviation + b.deviation * b.deviation).sqrt();
            let z = (a.mean - b.mean) / spread;
            // From both sides, so that equal arms get equal parts to the last bit.
            best[a.index] = normals(&[z; NODES]).1[0];
            best[b.index] = normals(&[-z; NODES]).1[0];
            return;
        }
        loop {
            if let [only] = self.arms.as_slice() {
                // All others lie below: what is left of it wins.
                let (_, below) = normals(&[(left - only.mean) / only.deviation; NODES]);
                best[only.index] += 1.0 - below[0];
                return;
            }
            let deviations = self.arms.iter().map(|arm| arm.deviation);
            let width = PANEL * deviations.fold(f64::INFINITY, f64::min);
            let distance = highest - left;
            let panels = (distance / width).ceil();
            if panels <= 1.0 {
                self.add_panel(left + 0.5 * distance, 0.5 * distance, best);
                return;
            }
            // As wide as the rest of the way needs, if the narrowest arm stays that long.
            let half = 0.5 * distance / panels;
            self.add_panel(left + half, half, best);
            left += 2.0 * half;
            self.arms.retain(|arm| arm.end > left);
        }
    }

    /// Adds each arm's part of the panel around `middle`.
    fn add_panel(&mut self, middle: f64, half: f64, best: &mut [f64]) {
        self.curves.clear();
        let mut product = RULE[1];
        for arm in &self.arms {
            let mut curve = Curve::trace(arm, middle, half);
            curve.before = product;
            for (product, below) in product.iter_mut().zip(&curve.below) {
                *product *= below;
            }
            self.curves.push(curve);
        }
        let mut after = [half; NODES];
        for (arm, curve) in self.arms.iter().zip(&self.curves).rev() {
            let mut parts = [0.0; NODES];
            for node in 0..NODES {
                parts[node] = curve.density[node] * curve.before[node] * after[node];
                after[node] *= curve.below[node];
            }
            best[arm.index] += parts.iter().sum::<f64>() / arm.deviation;
        }
    }
}

impl Curve {
    fn trace(arm: &Arm, middle: f64, half: f64) -> Self {
        let scale = 1.0 / arm.deviation;
        let (start, step) = ((middle - arm.mean) * scale, half * scale);
        let mut z = RULE[0];
        for z in &mut z {
            *z = start + step * *z;
        }
        let (density, below) = normals(&z);
        Self {
            density,
            below,
            before: [0.0; NODES],
        }
    }
}

/// Coefficients of the Mills ratio Φ(−x)/φ(x) for 0 ≤ x ≤ 9 as a polynomial in 1 / (1 + 0.3 x) without constant term, in the manner of
/// Hastings (Abramowitz and Stegun, 1964, 26.2.17); a least-squares fit, reweighted until φ(x) times its greatest error was 6e-12.
const MILLS: [f64; 9] = [
    0.297_707_679_340_730_9,
    0.329_550_245_032_357_4,
    0.105_252_523_969_233_46,
    0.766_388_022_733_629_5,
    -0.974_000_363_156_924_6,
    1.519_598_611_608_504,
    -1.131_666_583_648_000_7,
    0.395_064_277_167_583_63,
    -0.054_580_275_717_617_865,
];

/// Densities and distribution functions of the standard normal, within 1e-11; z beyond ±9 counts as ±9.
///
/// One step for all nodes after the other, so that each is a loop over neighbours.
#[inline]
fn normals(z: &[f64; NODES]) -> ([f64; NODES], [f64; NODES]) {
    let x = z.map(|z| z.abs().min(9.0));
    let mut density = exps(x.map(|x| -0.5 * x * x));
    for density in &mut density {
        *density *= 0.398_942_280_401_432_7;
    }
    let q = x.map(|x| 1.0 / (1.0 + 0.3 * x));
    let mut sums = [0.0; NODES];
    for coefficient in MILLS.iter().rev() {
        for node in 0..NODES {
            sums[node] = (sums[node] + coefficient) * q[node];
        }
    }
    let mut below = [0.0; NODES];
    for node in 0..NODES {
        let tail = density[node] * sums[node];
        below[node] = if z[node] > 0.0 { 1.0 - tail } else { tail };
    }
    (density, below)
}

/// eˣ for −700 ≤ x ≤ 0, within 1e-11 relative.
#[inline]
fn exps(x: [f64; NODES]) -> [f64; NODES] {
    /// 1.5 · 2⁵²: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = x.map(|x| x * LOG2_E + ROUND);
    let mut rest = [0.0; NODES];
    for node in 0..NODES {
        rest[node] = x[node] - (shifted[node] - ROUND) * LN_2;
    }
    // Taylor's series on [-ln 2 / 2, ln 2 / 2]: 1 + x/1 (1 + x/2 (1 + …)).
    let mut sums = [1.0 / 362_880.0; NODES];
    for coefficient in [
        1.0 / 40320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        for node in 0..NODES {
            sums[node] = sums[node] * rest[node] + coefficient;
        }
    }
    for node in 0..NODES {
        sums[node] *= f64::from_bits(shifted[node].to_bits().wrapping_add(1023) << 52);
    }
    sums
}

#[cfg(test)]
mod tests;
