//! What a panic on a worker's thread said. The usual hook writes to standard error, and a full
//! pipe there would hold up media; a worker's panic is kept instead, and the main thread logs it.

use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// `None` on threads that are no workers.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on, panics of this thread are kept.
pub(crate) fn keep_on_this_thread() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| {
            if !keep(info) {
                usual(info);
            }
        }));
    });
    KEPT.with_borrow_mut(|kept| *kept = Some(String::new()));
}

/// What this thread's last panic said, with its place in the source.
pub(crate) fn take() -> String {
    KEPT.with_borrow_mut(|kept| kept.as_mut().map(std::mem::take).unwrap_or_default())
}

fn keep(info: &PanicHookInfo<'_>) -> bool {
    KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) => {
            *kept = info.to_string();
            true
        }
        None => false,
    })
}
