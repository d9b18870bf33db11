//! The short form of `cargo xtask soak`.

use landfall_test_ingress::program::built;
use landfall_test_ingress::soak::{self, Settings};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_and_no_websocket_closed_while_endpoints_and_routes_come_and_go() {
    let phase = soak::churn(&Settings::new(built().to_owned(), 10_000)).await;
    let shown = phase.json();
    assert_eq!(phase.tally.requests, 10_000, "{shown:#}");
    assert_eq!(phase.tally.lost, 0, "{shown:#}");
    assert_eq!((phase.websockets, phase.websockets_closed.len()), (32, 0), "{shown:#}");
    assert!(phase.endpoint_changes > 20 && phase.route_changes > 4, "{shown:#}");
    // A kill may take several requests with it, not more than there are clients.
    assert!(phase.tally.killed <= phase.kills * 16, "{shown:#}");
}
