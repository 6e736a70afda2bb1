use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_modbus::{ExceptionCode, Request, Response};

use super::Boiler;

/// A boiler that lives on: time passes for it whenever somebody looks. Clones are the same boiler.
#[derive(Clone, Debug)]
pub struct BoilerView(Arc<Mutex<Living>>);

#[derive(Debug)]
struct Living {
    boiler: Boiler,
    at: Instant,
    acceleration: u32,
    requests: u64,
}

impl BoilerView {
    pub(super) fn new(boiler: Boiler, acceleration: u32) -> Self {
        Self(Arc::new(Mutex::new(Living { boiler, at: Instant::now(), acceleration, requests: 0 })))
    }

    /// The boiler as it is now.
    pub fn now(&self) -> Boiler {
        self.with(|boiler| *boiler)
    }

    /// How many requests it has answered, refused ones included.
    pub fn requests(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).requests
    }

    fn with<T>(&self, look: impl FnOnce(&mut Boiler) -> T) -> T {
        let mut living = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.saturating_duration_since(living.at);
        living.at = now;
        living.boiler = living.boiler.step(passed.checked_mul(living.acceleration).unwrap_or(Duration::MAX));
        look(&mut living.boiler)
    }

    /// Answers a request as the device would.
    pub(super) fn answer(&self, request: Request<'_>) -> Result<Response, ExceptionCode> {
        use Request as Ask;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).requests += 1;
        self.with(|boiler| match request {
            Ask::ReadCoils(address, count) => window(&[boiler.enabled], address, count, 2000).map(Response::ReadCoils),
            Ask::ReadDiscreteInputs(address, count) => {
                window(&[boiler.heater_on()], address, count, 2000).map(Response::ReadDiscreteInputs)
            }
            Ask::ReadHoldingRegisters(address, count) => {
                window(&[word(boiler.setpoint * 10.0)], address, count, 125).map(Response::ReadHoldingRegisters)
            }
            Ask::ReadInputRegisters(address, count) => {
                let words = [word(boiler.water * 10.0), word(boiler.power())];
                window(&words, address, count, 125).map(Response::ReadInputRegisters)
            }
            Ask::WriteSingleCoil(address, on) => {
                switch(boiler, address, &[on]).map(|()| Response::WriteSingleCoil(address, on))
            }
            Ask::WriteMultipleCoils(address, coils) => {
                switch(boiler, address, &coils).map(|()| Response::WriteMultipleCoils(address, 1))
            }
            Ask::WriteSingleRegister(address, word) => {
                set(boiler, address, &[word]).map(|()| Response::WriteSingleRegister(address, word))
            }
            Ask::WriteMultipleRegisters(address, words) => {
                set(boiler, address, &words).map(|()| Response::WriteMultipleRegisters(address, 1))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

/// The highest setpoint that the device takes, in steps of 0.1 °C.
const HIGHEST: u16 = 950;

fn window<T: Copy>(table: &[T], address: u16, count: u16, most: u16) -> Result<Vec<T>, ExceptionCode> {
    if count == 0 || count > most {
        return Err(ExceptionCode::IllegalDataValue);
    }
    let (start, count) = (usize::from(address), usize::from(count));
    table.get(start..start + count).map(<[T]>::to_vec).ok_or(ExceptionCode::IllegalDataAddress)
}

fn switch(boiler: &mut Boiler, address: u16, coils: &[bool]) -> Result<(), ExceptionCode> {
    match (address, coils) {
        (0, [on]) => {
            boiler.enabled = *on;
            Ok(())
        }
        (_, []) => Err(ExceptionCode::IllegalDataValue),
        _ => Err(ExceptionCode::IllegalDataAddress),
    }
}

fn set(boiler: &mut Boiler, address: u16, words: &[u16]) -> Result<(), ExceptionCode> {
    match (address, words) {
        (0, [tenths]) if *tenths <= HIGHEST => {
            boiler.setpoint = f64::from(*tenths) / 10.0;
            Ok(())
        }
        (0, [_]) | (_, []) => Err(ExceptionCode::IllegalDataValue),
        _ => Err(ExceptionCode::IllegalDataAddress),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn word(number: f64) -> u16 {
    number.round() as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn water(view: &BoilerView) -> u16 {
        match view.answer(Request::ReadInputRegisters(0, 1)).unwrap() {
            Response::ReadInputRegisters(words) => words[0],
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_temperature_moves_with_accelerated_time() {
        let view = BoilerView::new(Boiler::default(), 20);
        assert_eq!(water(&view), 200);
        tokio::time::advance(Duration::from_secs(10)).await;
        let warmer = water(&view);
        assert!((285..=300).contains(&warmer), "about 1 °C a second: {warmer}");
        view.answer(Request::WriteSingleRegister(0, 300)).unwrap();
        view.answer(Request::WriteSingleCoil(0, false)).unwrap();
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(water(&view) < warmer, "switched off it cools down");
        assert_eq!(view.now().setpoint.to_string(), "30");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_there_is_an_exception() {
        use ExceptionCode::{IllegalDataAddress, IllegalDataValue, IllegalFunction};
        let view = BoilerView::new(Boiler::default(), 1);
        for (request, exception) in [
            (Request::ReadCoils(1, 1), IllegalDataAddress),
            (Request::ReadDiscreteInputs(0, 2), IllegalDataAddress),
            (Request::ReadInputRegisters(65535, 125), IllegalDataAddress),
            (Request::ReadHoldingRegisters(0, 0), IllegalDataValue),
            (Request::ReadHoldingRegisters(0, 126), IllegalDataValue),
            (Request::WriteSingleRegister(0, 951), IllegalDataValue),
            (Request::WriteMultipleRegisters(0, vec![1, 2].into()), IllegalDataAddress),
            (Request::WriteMultipleCoils(0, vec![].into()), IllegalDataValue),
            (Request::ReportServerId, IllegalFunction),
        ] {
            assert_eq!(view.answer(request.clone()), Err(exception), "{request:?}");
        }
    }
}
