//! What is asked of the device out of turn.

use kubeedge_core::mapper::{DriverError, DriverHandle, Value};

use super::{Connection, DeviceTask};
use crate::{
    convert::{self, Limits},
    host::{
        demand::{Demand, DemandError, PropertyReading, Want},
        meter::Operation,
    },
};

impl DeviceTask {
    pub(super) async fn serve(&mut self, demand: Demand) {
        // Whoever gave up waiting does not want it done later.
        if demand.reply.is_closed() {
            return;
        }
        let driver = match &self.connection {
            Connection::Open(driver) => Ok(driver.clone()),
            _ => Err(DemandError::Driver(DriverError::Offline("it is not open".into()))),
        };
        let outcome = match (driver, &demand.want) {
            (Ok(driver), Want::Read) => self.read_now(&driver, &demand).await,
            (Ok(driver), Want::Write(text)) => self.write_now(&driver, &demand, text).await,
            (Err(error), _) => Err(error),
        };
        demand.answer(&self.instance.id, self.shared.config.audit.as_ref(), outcome);
    }

    async fn read_now(&mut self, driver: &DriverHandle, demand: &Demand) -> Result<PropertyReading, DemandError> {
        let name = &demand.property;
        let unknown = || DemandError::UnknownProperty(name.clone());
        let visitor = self.properties.get(name).ok_or_else(unknown)?.spec.visitor.clone();
        let value_type = visitor.value_type;
        match self.exchange(Operation::Read, driver.read(visitor)).await {
            Ok(sample) => {
                self.answered();
                self.note(name, &sample);
                Ok(PropertyReading { text: convert::to_text(&sample.value, value_type)?, value_type, at: sample.at })
            }
            Err(error) => {
                self.judge(&error);
                Err(error.into())
            }
        }
    }

    async fn write_now(
        &mut self,
        driver: &DriverHandle,
        demand: &Demand,
        text: &str,
    ) -> Result<PropertyReading, DemandError> {
        let (name, value) = (&demand.property, self.acceptable(demand, text)?);
        let Some(property) = self.properties.get(name) else {
            return Err(DemandError::UnknownProperty(name.clone()));
        };
        if let Err(error) = self.exchange(Operation::Write, driver.write(property.spec.visitor.clone(), value)).await {
            self.judge(&error);
            return Err(error.into());
        }
        self.answered();
        // What the device makes of it, if it says so; the next beat tells in any case.
        match self.read_now(driver, demand).await {
            Ok(reading) => Ok(reading),
            Err(_) => Ok(PropertyReading {
                text: text.to_owned(),
                value_type: self
                    .properties
                    .get(name)
                    .map(|property| property.spec.visitor.value_type)
                    .unwrap_or_default(),
                at: self.shared.config.clock.now(),
            }),
        }
    }

    fn acceptable(&self, demand: &Demand, text: &str) -> Result<Value, DemandError> {
        let unknown = || DemandError::UnknownProperty(demand.property.clone());
        let property = self.properties.get(&demand.property).ok_or_else(unknown)?;
        if !property.is_writable() {
            return Err(DemandError::ReadOnly(demand.property.clone()));
        }
        let (spec, value_type) = (&property.spec, property.spec.visitor.value_type);
        let value = convert::parse(text, value_type)?;
        Limits::parse(&spec.minimum, &spec.maximum, value_type)?.check(&value)?;
        Ok(value)
    }
}
