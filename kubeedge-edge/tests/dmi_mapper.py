"""A mapper that is not ours: grpcio and protobuf of Google, with the messages built from the numbers of their fields.

Arguments: socket of EdgeCore, own socket, protocol. Tells what happens as JSON, a line each, on its standard output.
Carries out the lines of its standard input, until that is closed: `report DEVICE PROPERTY VALUE`, and `flood DEVICE
PROPERTY COUNT`, which reports COUNT numbers of 20 properties side by side. Whatever is desired of a device is taken as
done, and reported.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

# Types: s text, b bytes, i int64, f flag, M map of text to Any, m map of text to text, a name a message; * many of it.
MESSAGES = {
    "MapperInfo": "s:name s:version s:api_version s:protocol b:address s:state",
    "MapperRegisterRequest": "f:withData MapperInfo:mapper",
    "MapperRegisterResponse": "DeviceModel*:modelList Device*:deviceList",
    "DeviceModel": "s:name DeviceModelSpec:spec s:namespace",
    "DeviceModelSpec": "ModelProperty*:properties",
    "ModelProperty": "s:name s:description s:type s:accessMode s:minimum s:maximum s:unit",
    "Device": "s:name DeviceSpec:spec DeviceStatus:status s:namespace",
    "DeviceSpec": "s:deviceModelReference Config:protocol DeviceProperty*:properties",
    "Config": "s:protocolName CustomizedValue:configData",
    "CustomizedValue": "M:data",
    "DeviceProperty": "s:name TwinProperty:desired Config:visitors i:reportCycle i:collectCycle f:reportToCloud",
    "TwinProperty": "s:value m:metadata",
    "Twin": "s:propertyName TwinProperty:observedDesired TwinProperty:reported",
    "DeviceStatus": "Twin*:twins f:reportToCloud i:reportCycle",
    "ReportDeviceStatusRequest": "s:deviceName DeviceStatus:reportedDevice s:deviceNamespace",
    "ReportDeviceStatesRequest": "s:deviceName s:deviceNamespace s:state",
    "DeviceRequest": "Device:device",
    "DeviceName": "s:deviceName s:deviceNamespace",
    "ModelRequest": "DeviceModel:model",
    "ModelName": "s:name s:namespace",
    "Empty": "",
}


def build():
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="dmi.proto", package="v1beta1", syntax="proto3")
    file.dependency.append(any_pb2.DESCRIPTOR.name)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields.split(), 1):
            kind, field = field.split(":")
            many = kind.endswith("*") or kind in "mM"
            label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            kind = kind.rstrip("*")
            simple = {"s": kinds.TYPE_STRING, "b": kinds.TYPE_BYTES, "i": kinds.TYPE_INT64, "f": kinds.TYPE_BOOL}
            if kind in simple:
                made.type = simple[kind]
                continue
            made.type = kinds.TYPE_MESSAGE
            if kind not in "mM":
                made.type_name = ".v1beta1." + kind
                continue
            entry = message.nested_type.add(name=field.capitalize() + "Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
            value = entry.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
            if kind == "M":
                value.type, value.type_name = kinds.TYPE_MESSAGE, ".google.protobuf.Any"
            made.type_name = f".v1beta1.{name}.{entry.name}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    classes = {}
    for name in MESSAGES:
        descriptor = pool.FindMessageTypeByName("v1beta1." + name)
        made = getattr(message_factory, "GetMessageClass", None)
        classes[name] = made(descriptor) if made else message_factory.MessageFactory(pool).GetPrototype(descriptor)
    return classes


T = build()
SAYING = threading.Lock()


def say(**what):
    with SAYING:
        print(json.dumps(what), flush=True)


def settings(config):
    """As the Go framework reads them: what is of another type is overlooked."""
    plain = {}
    for key, value in config.configData.data.items():
        for name in ["StringValue", "BoolValue", "FloatValue", "Int32Value", "Int64Value"]:
            wrapper = getattr(wrappers_pb2, name)()
            if value.Unpack(wrapper):
                plain[key] = [name, wrapper.value]
    return plain


def shown(device):
    parts = [(device, "spec"), (device, "status"), (device.spec, "protocol"), (device.spec.protocol, "configData")]
    for each in device.spec.properties:
        parts += [(each, "desired"), (each, "visitors"), (each.visitors, "configData")]
    return {
        "name": device.name,
        "namespace": device.namespace,
        "config": settings(device.spec.protocol),
        "desired": {each.name: each.desired.value for each in device.spec.properties},
        "complete": all(message.HasField(field) for message, field in parts),
    }


class Mapper:
    def __init__(self, edge, own, protocol):
        self.channel = grpc.insecure_channel("unix:" + edge)
        self.own, self.protocol = own, protocol
        self.reports = futures.ThreadPoolExecutor(1)
        self.desired = {}

    def call(self, name, request, answer, timeout=5):
        path = "/v1beta1.DeviceManagerService/" + name
        serialize = type(request).SerializeToString
        return self.channel.unary_unary(path, serialize, T[answer].FromString)(request, timeout=timeout)

    def serve(self):
        answers = {
            "RegisterDevice": ("DeviceRequest", "DeviceName", self.device),
            "UpdateDevice": ("DeviceRequest", "Empty", self.device),
            "RemoveDevice": ("DeviceName", "Empty", lambda call, name: say(call=call, name=name.deviceName)),
            "CreateDeviceModel": ("ModelRequest", "ModelName", lambda call, of: say(call=call, name=of.model.name)),
            "UpdateDeviceModel": ("ModelRequest", "Empty", lambda call, of: say(call=call, name=of.model.name)),
            "RemoveDeviceModel": ("ModelName", "Empty", lambda call, of: say(call=call, name=of.name)),
        }

        def handler(call, request, answer, work):
            def serve(message, _context):
                work(call, message)
                return T[answer]()

            serialize = T[answer].SerializeToString
            return grpc.unary_unary_rpc_method_handler(serve, T[request].FromString, serialize)

        handlers = {call: handler(call, *rest) for call, rest in answers.items()}
        server = grpc.server(futures.ThreadPoolExecutor(4))
        name = "v1beta1.DeviceMapperService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_insecure_port("unix:" + self.own)
        server.start()
        return server

    def register(self):
        info = T["MapperInfo"](name="python", version="v1", api_version="v1", protocol=self.protocol, state="ok")
        info.address = self.own.encode()
        while True:
            try:
                request = T["MapperRegisterRequest"](withData=True, mapper=info)
                return self.call("MapperRegister", request, "MapperRegisterResponse", timeout=1)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.1)

    def device(self, call, request):
        say(call=call, **shown(request.device))
        self.take(request.device)

    def take(self, device):
        for each in device.spec.properties:
            self.desired[device.name, each.name] = each.desired.value
            if each.desired.value:
                self.reports.submit(self.report, device.name, each.name, each.desired.value)

    def report(self, device, name, value):
        request = T["ReportDeviceStatusRequest"](deviceName=device, deviceNamespace="default")
        twin = request.reportedDevice.twins.add(propertyName=name)
        twin.observedDesired.value = self.desired.get((device, name), "")
        twin.reported.value = value
        twin.reported.metadata["type"] = "string"
        try:
            self.call("ReportDeviceStatus", request, "Empty")
            return "OK"
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"


def main():
    mapper = Mapper(*sys.argv[1:])
    server = mapper.serve()
    answer = mapper.register()
    say(registered=[shown(device) for device in answer.deviceList], models=[model.name for model in answer.modelList])
    for device in answer.deviceList:
        mapper.take(device)
    for line in sys.stdin:
        command, device, name, value = line.split()
        if command == "report":
            say(answer=mapper.report(device, name, value))
        else:
            with futures.ThreadPoolExecutor(16) as pool:
                report = lambda number: mapper.report(device, f"{name}{number % 20}", str(number))
                answers = list(pool.map(report, range(int(value))))
            say(answers=len(answers), ok=answers.count("OK"))
    server.stop(None)


main()
