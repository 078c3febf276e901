//! Payload type numbers from one leg to the other: RFC 3264 §5.1 lets each side choose its own.

use trunkline_edge_api::{PayloadRoute, PayloadRoutes, PayloadType};

/// Values of the seven-bit payload type field.
const PAYLOAD_TYPES: usize = 128;

/// Marks a payload type that was not negotiated; no payload type has the top bit.
const NOT_ROUTED: u8 = 0xff;

/// One look-up per packet, whatever the number of routes.
#[derive(Debug, Clone)]
pub struct PayloadTable {
    /// Index into `routes` by incoming payload type, or [`NOT_ROUTED`].
    route_index: [u8; PAYLOAD_TYPES],
    routes: PayloadRoutes,
}

const _: () = assert!(PayloadRoutes::LEN_MAX < NOT_ROUTED as usize);

impl PayloadTable {
    /// Builds the table. Allocates nothing; `routes` moves in.
    #[must_use]
    pub fn new(routes: PayloadRoutes) -> Self {
        let mut route_index = [NOT_ROUTED; PAYLOAD_TYPES];
        for (index, route) in (0u8..).zip(routes.as_slice()) {
            route_index[usize::from(route.from.get())] = index;
        }
        Self {
            route_index,
            routes,
        }
    }

    /// What `from` is called on the far leg; `None` when it was not negotiated.
    #[inline]
    #[must_use]
    pub fn route(&self, from: PayloadType) -> Option<PayloadRoute> {
        let index = self.route_index[usize::from(from.get())];
        self.routes.as_slice().get(usize::from(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use trunkline_edge_api::ClockRateHz;

    use super::*;

    fn pt(value: u8) -> PayloadType {
        PayloadType::new(value).expect("below 128")
    }

    #[test]
    fn routes_what_was_negotiated_and_nothing_else() {
        let routes = vec![
            PayloadRoute {
                from: PayloadType::PCMU,
                to: PayloadType::PCMU,
                clock_rate: ClockRateHz::NARROWBAND,
            },
            PayloadRoute {
                from: pt(111),
                to: pt(96),
                clock_rate: ClockRateHz::OPUS,
            },
            PayloadRoute {
                from: pt(127),
                to: pt(0),
                clock_rate: ClockRateHz::NARROWBAND,
            },
        ];
        let table = PayloadTable::new(PayloadRoutes::new(routes.clone()).expect("no duplicates"));
        for value in 0..128 {
            let expected = routes.iter().find(|route| route.from == pt(value)).copied();
            assert_eq!(table.route(pt(value)), expected, "payload type {value}");
        }
    }
}
