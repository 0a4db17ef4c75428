//! In turn, as often as the weights say.
//!
//! All turns of a round laid end to end are as long as the sum of the weights. Walking through them in steps of a golden
//! section visits each once a round and spreads those of a heavy target over it: 5:1:1 gives a a b a c a a, or nearly, and
//! not five in a row. It needs one counter and no state per target, so targets may come and go.

use super::{Member, at, total};

/// See the module. `turn`: how many there were before.
pub(super) fn choose(members: &[impl Member], turn: usize) -> usize {
    let common = members.iter().map(Member::weight).fold(0, gcd).max(1);
    let round = total(members) / u64::from(common);
    let step = (round * 89 / 144..=round).find(|&step| step > 0 && gcd64(step, round) == 1).unwrap_or(1);
    let point = (u128::from(turn as u64) * u128::from(step) % u128::from(round.max(1))) as u64;
    at(members, point * u64::from(common))
}

fn gcd(one: u32, two: u32) -> u32 {
    gcd64(u64::from(one), u64::from(two)) as u32
}

fn gcd64(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { gcd64(two, one % two) }
}
