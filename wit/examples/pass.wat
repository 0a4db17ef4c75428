;; The smallest plugin: subscribes to everything, keeps an exchange, changes nothing. A fault case replaces one function body.
;; Made a component by: wasm-tools parse pass.wat -o m.wasm && wasm-tools component embed .. m.wasm --world plugin -o e.wasm && wasm-tools component new e.wasm -o pass.wasm
(module
  (import "[export]tidegate:plugin/hooks@0.1.0" "[resource-new]exchange" (func $new (param i32) (result i32)))
  (import "[export]tidegate:plugin/hooks@0.1.0" "[resource-drop]exchange" (func $drop (param i32)))
  (import "tidegate:plugin/calls@0.1.0" "[resource-drop]call" (func $done (param i32)))
  (memory (export "memory") 1)
  (global $heap (mut i32) (i32.const 4096))
  (data (i32.const 16) "pass0.1.0")
  ;; Bump allocator, reset at the start of each hook's answer: good enough for one call at a time.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get 3)))
    (block $room
      (br_if $room (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (drop (memory.grow (i32.const 16))))
    (local.get $at))
  ;; description, 52 bytes at 64: name, version, hooks (flags, 1 byte at 16), events (1 byte at 17), two options, list.
  (func (export "tidegate:plugin/hooks@0.1.0#describe") (result i32)
    (i32.store (i32.const 64) (i32.const 16)) (i32.store (i32.const 68) (i32.const 4))
    (i32.store (i32.const 72) (i32.const 20)) (i32.store (i32.const 76) (i32.const 5))
    (i32.store8 (i32.const 80) (i32.const 7)) (i32.store8 (i32.const 81) (i32.const 127))
    (i32.const 64))
  ;; admission, 40 bytes at 256: verdict (tag at 0: pass = 0), exchange (option tag at 32, handle at 36).
  (func (export "tidegate:plugin/hooks@0.1.0#on-call") (param $call i32) (result i32)
    (call $done (local.get $call)) ;; a borrow that is not given back traps
    (i32.store8 (i32.const 288) (i32.const 1))
    (i32.store (i32.const 292) (call $new (i32.const 1)))
    (global.set $heap (i32.const 4096))
    (i32.const 256))
  (func (export "tidegate:plugin/hooks@0.1.0#[constructor]exchange") (result i32) (call $new (i32.const 1)))
  ;; rewrite, 32 bytes at 512: tag (pass = 0, change = 1 with ptr and len at 4, refuse = 2 with status at 4).
  (func (export "tidegate:plugin/hooks@0.1.0#[method]exchange.on-events") (param $self i32) (param $events i32) (param $count i32) (result i32)
    (global.set $heap (i32.const 4096))
    (i32.const 512))
  ;; 22 flat parameters are more than 16: they come as one pointer, the exchange's handle first. It is ours now: dropping it runs the destructor.
  (func (export "tidegate:plugin/hooks@0.1.0#on-end") (param $all i32)
    (call $drop (i32.load (local.get $all)))
    (global.set $heap (i32.const 4096)))
  (func (export "tidegate:plugin/hooks@0.1.0#[dtor]exchange") (param i32))
)
