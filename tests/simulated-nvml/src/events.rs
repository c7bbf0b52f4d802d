//! The exported event calls.
//!
//! The library delivers each XID that a scenario appends to the event sets with its GPU.
//!
//! # Safety
//!
//! As in NVML, the caller of each function must pass pointers that are valid for the reads and
//! writes that `nvml.h` names.
#![allow(non_snake_case, clippy::missing_safety_doc, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong, c_void};
use std::time::{Duration, Instant};

use crate::abi::{EventData, Handle, Return};
use crate::arguments::put;
use crate::machine::{call, device_call, machine};
use crate::scenario::{Scenario, codes};

/// `nvmlEventTypeXidCriticalError`.
const XID: u64 = 8;
type EventSet = *mut c_void;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut EventSet) -> Return {
    call("nvmlEventSetCreate", |_| {
        let id = machine(|machine| {
            machine.next_event_set += 1;
            machine.statistics.open_event_sets += 1;
            machine
                .event_sets
                .insert(machine.next_event_set, BTreeMap::new());
            machine.next_event_set
        });

        put(set, std::ptr::without_provenance_mut(id))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: EventSet) -> Return {
    machine(|machine| match machine.event_sets.remove(&set.addr()) {
        Some(_) => {
            machine.statistics.open_event_sets -= 1;
            0
        }
        None => codes::INVALID_ARGUMENT,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: Handle,
    types: c_ulonglong,
    set: EventSet,
) -> Return {
    device_call("nvmlDeviceRegisterEvents", device, |scenario, target| {
        if types & !XID != 0 {
            return Err(codes::NOT_SUPPORTED);
        }

        let gpu = target.gpu(scenario)?;
        machine(|machine| {
            let set = machine
                .event_sets
                .get_mut(&set.addr())
                .ok_or(codes::INVALID_ARGUMENT)?;
            set.insert(gpu.uuid.clone(), gpu.events.len());
            Ok(())
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: Handle,
    types: *mut c_ulonglong,
) -> Return {
    device_call("nvmlDeviceGetSupportedEventTypes", device, |_, _| {
        put(types, XID)
    })
}

fn next_event(scenario: &Scenario, set: EventSet) -> Result<Option<EventData>, Return> {
    machine(|machine| {
        let cursors = machine
            .event_sets
            .get_mut(&set.addr())
            .ok_or(codes::INVALID_ARGUMENT)?;
        let found = scenario.devices.iter().find_map(|gpu| {
            let delivered = cursors.get_mut(&gpu.uuid)?;
            let event = gpu.events.get(*delivered)?;
            *delivered += 1;
            Some((gpu.uuid.clone(), event.xid))
        });

        Ok(found.map(|(uuid, xid)| EventData {
            device: machine.handle(&uuid),
            event_type: XID,
            event_data: xid,
            gpu_instance_id: u32::MAX,
            compute_instance_id: u32::MAX,
        }))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: EventSet,
    data: *mut EventData,
    timeout_ms: c_uint,
) -> Return {
    let until = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    loop {
        let mut event = None;
        let failed = call("nvmlEventSetWait_v2", |scenario| {
            event = next_event(scenario, set)?;
            Ok(())
        });

        match event {
            Some(event) => return put(data, event).err().unwrap_or(0),
            None if failed != 0 => return failed,
            None if Instant::now() >= until => return codes::TIMEOUT,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
