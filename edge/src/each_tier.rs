//! Running a test on each tier.

/// Makes two tests of each function it names: `io_uring::name` and `epoll::name`. The functions
/// take a [`trunkline_edge_api::IoTier`]. One that is left out is dead code, and the compiler says
/// so.
macro_rules! on_each_tier {
    ($($test:ident),+ $(,)?) => {
        mod io_uring {
            $(
                #[test]
                fn $test() {
                    super::$test(trunkline_edge_api::IoTier::IoUring);
                }
            )+
        }
        mod epoll {
            $(
                #[test]
                fn $test() {
                    super::$test(trunkline_edge_api::IoTier::Epoll);
                }
            )+
        }
    };
}

pub(crate) use on_each_tier;
