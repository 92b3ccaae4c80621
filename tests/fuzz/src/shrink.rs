//! The least of a failing list of inputs that still fails. Pure but for the question whether it does. Host.

/// Leaves out inputs, then bytes of those that are left, in ever smaller pieces, while `fails` holds.
pub fn shrink(mut inputs: Vec<Vec<u8>>, mut fails: impl FnMut(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
    leave_out(&mut inputs, &mut fails);
    for place in 0..inputs.len() {
        let Some(mut input) = inputs.get(place).cloned() else {
            break;
        };
        leave_out(&mut input, &mut |shorter| {
            let mut trial = inputs.clone();
            if let Some(input) = trial.get_mut(place) {
                *input = shorter.to_vec();
            }
            fails(&trial)
        });
        if let Some(shorter) = inputs.get_mut(place) {
            *shorter = input;
        }
    }
    inputs
}

/// Leaves out pieces of `items` while `fails` holds: halves first, single items last, until no single one can go.
fn leave_out<T: Clone>(items: &mut Vec<T>, fails: &mut impl FnMut(&[T]) -> bool) {
    let mut piece = items.len().div_ceil(2);
    while piece > 0 {
        let before = items.len();
        // From the end: what comes last was often not reached.
        let mut end = items.len();
        while end > 0 {
            let start = end.saturating_sub(piece);
            let mut trial = items.clone();
            trial.drain(start..end);
            if fails(&trial) {
                *items = trial;
            }
            end = start;
        }
        if piece > 1 || items.len() == before {
            piece /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let inputs: Vec<Vec<u8>> = (0..40).map(|number| (number..number + 30).collect()).collect();
        // A 3 in one input and a 50 in a later one.
        let fails = |inputs: &[Vec<u8>]| {
            let first = inputs.iter().position(|input| input.contains(&3));
            first.is_some_and(|first| inputs.iter().skip(first + 1).any(|input| input.contains(&50)))
        };
        assert!(fails(&inputs));
        assert_eq!(shrink(inputs, fails), [[3], [50]]);
    }

    #[test]
    fn an_input_may_lose_all_its_bytes() {
        assert_eq!(shrink(vec![vec![1, 2], vec![3]], |inputs| inputs.len() == 2), [[], []] as [[u8; 0]; 2]);
    }
}
