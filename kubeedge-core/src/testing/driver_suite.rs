use crate::{
    mapper::{DriverError, DriverHandle, Value, Visitor},
    service::BoxError,
};

/// What every [`Driver`](crate::mapper::Driver) has to do: `writable` is a property that keeps each of `values`, and
/// `wrong` a visitor whose settings the protocol does not have.
///
/// # Errors
/// What the driver answered where it should have worked.
///
/// # Panics
/// With the rule that is broken.
pub async fn driver_suite(
    driver: DriverHandle,
    writable: Visitor,
    values: Vec<Value>,
    wrong: Visitor,
) -> Result<(), BoxError> {
    for value in values {
        driver.write(writable.clone(), value.clone()).await?;
        let sample = driver.read(writable.clone()).await?;
        assert_eq!(sample.value, value, "what was written is read");
        assert!(sample.at.0 > 0, "a sample tells when the device had it");
    }
    match driver.read(wrong.clone()).await {
        Err(DriverError::Config { field, value, reason }) => {
            assert!(!field.is_empty() && !reason.is_empty(), "a bad setting is named: {field:?} {value:?} {reason:?}");
        }
        other => panic!("a bad setting is an error of the settings, not {other:?}"),
    }
    driver.health().await?;
    let again = driver.read(writable).await;
    assert!(again.is_ok(), "a refused call does not break the driver: {again:?}");
    Ok(())
}
