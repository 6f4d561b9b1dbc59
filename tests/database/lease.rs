//! The lease: one runner per database.

use std::sync::Mutex;

use tidegate::scheduler::database::{Database, Holder, Lease, LeaseAttempt};
use tidegate::update::ErrorClass;

use crate::support::place::{Place, begin, holder, row};
use crate::support::until;

async fn take(database: &dyn Database, number: u32) -> Box<dyn Lease> {
    match database.try_lease(&holder(number)).await.unwrap() {
        LeaseAttempt::Held(lease) => lease,
        LeaseAttempt::Taken(by) => panic!("taken by {by:?}"),
    }
}

async fn taken_by(database: &dyn Database) -> Option<Holder> {
    match database.try_lease(&holder(99)).await.unwrap() {
        LeaseAttempt::Held(_) => panic!("the lease was to be had"),
        LeaseAttempt::Taken(by) => by,
    }
}

crate::support::on_both! {
    async fn one_host_holds_the_lease(place: Place) {
        let (first, second) = (place.prepared().await, place.prepared().await);
        assert_eq!(second.lease_holder().await.unwrap(), None);
        let lease = take(&*first, 7).await;
        assert_eq!(taken_by(&*second).await, Some(holder(7)));
        assert_eq!(taken_by(&*first).await, Some(holder(7)));
        assert_eq!(second.lease_holder().await.unwrap(), Some(holder(7)));
        lease.release().await;
        assert_eq!(second.lease_holder().await.unwrap(), None);
        let lease = take(&*second, 8).await;
        assert_eq!(first.lease_holder().await.unwrap(), Some(holder(8)));
        lease.release().await;
    }

    async fn a_lease_dropped_is_to_be_had_again(place: Place) {
        let (first, second) = (place.prepared().await, place.prepared().await);
        drop(take(&*first, 1).await);
        crate::support::until("the lease is free", || async {
            matches!(second.try_lease(&holder(2)).await.unwrap(), LeaseAttempt::Held(_))
        })
        .await;
    }

    async fn each_queue_table_has_its_own_lease(place: Place) {
        let database = place.prepared().await;
        let other = place.open_with(|options| options.queue_table = "other/updates".to_owned());
        other.prepare().await.unwrap();
        let lease = take(&*database, 1).await;
        let others = take(&*other, 2).await;
        assert_eq!(other.lease_holder().await.unwrap(), Some(holder(2)));
        lease.release().await;
        assert_eq!(taken_by(&*other).await, Some(holder(2)));
        others.release().await;
    }

    async fn a_lease_lasts_while_nothing_happens(place: Place) {
        let database = place.prepared().await;
        let mut lease = take(&*database, 1).await;
        let lost = tokio::time::timeout(std::time::Duration::from_millis(300), lease.lost()).await;
        assert!(lost.is_err(), "lost: {lost:?}");
        lease.release().await;
    }

    async fn no_batch_begins_under_a_lease_that_another_has_taken(place: Place) {
        let database = place.prepared().await;
        database.enqueue(&row("a")).await.unwrap();
        let lease = take(&*database, 1).await;
        begin(&*database, "a", "{}").await.commit(Some("{\"n\":1}")).await.unwrap();
        place.run(place.either(
            "insert into tidegate_lease (queue, epoch, holder) values ('background_updates', 1, '{}')",
            "update tidegate_lease set epoch = epoch + 1",
        )).await;
        let refused = database.begin("a", "{\"n\":1}").await.err().expect("no batch");
        assert_eq!(refused.class, ErrorClass::Overtaken, "{refused}");
        drop(lease);
        // Under another it does.
        let found = Mutex::new(None);
        until("the lease is to be had", async || match database.try_lease(&holder(1)).await.unwrap() {
            LeaseAttempt::Held(lease) => found.lock().unwrap().replace(lease).is_none(),
            LeaseAttempt::Taken(_) => false,
        })
        .await;
        let lease = found.into_inner().unwrap().unwrap();
        begin(&*database, "a", "{\"n\":1}").await.commit(None).await.unwrap();
        lease.release().await;
    }

    async fn switched_off_the_lease_excludes_nobody(place: Place) {
        let _lease = take(&*place.prepared().await, 1).await;
        let careless = place.open_with(|options| options.switches.lease_always = true);
        careless.prepare().await.unwrap();
        take(&*careless, 2).await.release().await;
    }
}
