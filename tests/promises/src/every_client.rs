//! What every client promises, whatever its sockets are.

use crate::{Kept, Ours};

promises! {
    anybody: [],
    ours: [
        a_time_limit_that_is_none_is_refused_with_what_is_right,
    ],
}

pub fn a_time_limit_that_is_none_is_refused_with_what_is_right(ours: &Ours) -> Kept {
    ours.refuses_seconds("--timeout")
}
