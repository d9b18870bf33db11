//! Lists of servers that do not stream them: pages, and what goes wrong between two of them.

use crate::harness::{Proxy, endpoint, ingress, until};
use crate::{FakeApi, KINDS, cluster, ready};
use landfall_test_ingress::fake_api::StreamingLists;
use std::net::SocketAddr;

/// More than two pages of 500.
const MANY: usize = 1200;

async fn crowded(one: SocketAddr) -> FakeApi {
    let api = cluster(&[one]).await;
    let all = (0..MANY).map(|n| ingress(&format!("i{n:04}"), &format!("h{n:04}.nginx.com"), "nginx"));
    api.put_all("ingresses", all);
    api
}

/// Everything is there, and changes come.
async fn is_whole(proxy: &Proxy, api: &FakeApi) {
    for host in ["test", "h0000", "h0600", "h1199"] {
        assert_eq!(proxy.body(&format!("{host}.nginx.com")).await, "one", "{host}");
    }
    assert_eq!(proxy.metric("ingresses").await as usize, MANY + 1);
    api.put("ingresses", ingress("later", "later.nginx.com", "nginx"));
    until("what came later", || async {
        proxy.body("later.nginx.com").await == "one"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_lists_are_not_streamed_they_are_read_in_pages() {
    let api = crowded(endpoint("one").await).await;
    api.streaming_lists(StreamingLists::Refused);
    let proxy = ready(&api).await;
    assert_eq!(api.count("list", "ingresses"), 3);
    is_whole(&proxy, &api).await;
    // After a break the pages are read again, beside the table that serves.
    api.cut_and_forget();
    until("the list again", || async { api.count("list", "ingresses") == 6 }).await;
    api.delete("ingresses", "default", "later");
    until("what is gone", || async {
        proxy.status("later.nginx.com").await == 404
    })
    .await;
    assert_eq!(proxy.body("h1199.nginx.com").await, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_forgotten_between_two_pages_is_begun_anew() {
    let api = crowded(endpoint("one").await).await;
    api.streaming_lists(StreamingLists::Refused);
    api.expire_page();
    let proxy = ready(&api).await;
    assert!(api.count("list", "ingresses") > 3);
    is_whole(&proxy, &api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_says_where_a_streamed_list_ends_is_asked_for_pages() {
    let api = crowded(endpoint("one").await).await;
    api.streaming_lists(StreamingLists::Ignored);
    let proxy = ready(&api).await;
    assert!(KINDS.iter().all(|kind| api.count("list", kind) > 0));
    is_whole(&proxy, &api).await;
}
