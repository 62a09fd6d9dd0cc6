"""Where an interpreter keeps its instruction, in machine code made for the test."""

from pagescan.attribution.instruction_homes import BP, SP, InstructionHomes

STORE = bytes.fromhex("4c897b38")  # mov %r15,0x38(%rbx)
SUM = bytes.fromhex("498d4702")  # lea 0x2(%r15),%rax
SPILL = bytes.fromhex("4889442410")  # mov %rax,0x10(%rsp)
FAR_SPILL = bytes.fromhex("4c89bc2400010000")  # mov %r15,0x100(%rsp)
OTHER_SPILL = bytes.fromhex("48894c2418")  # mov %rcx,0x18(%rsp)
BELOW_BP = bytes.fromhex("488945c8")  # mov %rax,-0x38(%rbp)
CALL = bytes.fromhex("ff5030")  # call *0x30(%rax)
JUMP = bytes.fromhex("ffe0")  # jmp *%rax
HANDLER = STORE + JUMP
R10_STORE = bytes.fromhex("4c895338")  # mov %r10,0x38(%rbx)
OF_R12 = bytes.fromhex("4d897c2438")  # mov %r15,0x38(%r12)


def homes(*pieces: bytes) -> tuple[InstructionHomes, int]:
    """Return the homes of code that has many handlers first, and where it ends."""
    code = HANDLER * 60 + b"".join(pieces)
    return InstructionHomes(code), len(code)


def test_the_register_is_the_one_that_is_stored_into_frames() -> None:
    found, _ = homes()
    assert (found.register, found.preserved) == (15, 8)
    assert found.first == 0


def test_a_frame_may_be_in_r12() -> None:
    assert InstructionHomes((OF_R12 + JUMP) * 60).register == 15


def test_a_register_that_calls_change_is_no_home() -> None:
    found = InstructionHomes((R10_STORE + JUMP) * 60)
    assert (found.register, found.preserved) == (10, 0)


def test_no_register_without_a_clear_majority() -> None:
    mixed = InstructionHomes((HANDLER + R10_STORE + JUMP) * 60)
    assert mixed.register == -1
    assert InstructionHomes(HANDLER * 10).register == -1  # too few
    assert InstructionHomes(b"").first == 0


def test_copies_on_the_stack_the_latest_first() -> None:
    found, end = homes(STORE, SUM, SPILL, FAR_SPILL, OTHER_SPILL, CALL)
    assert found.words(end, SP) == [0x100, 0x10]
    assert found.words(end, BP) == []


def test_words_below_a_frame_pointer() -> None:
    found, end = homes(STORE, SUM, BELOW_BP, CALL)
    assert found.words(end, BP) == [-0x38]


def test_a_copy_may_be_made_before_the_store_into_the_frame() -> None:
    found, end = homes(SUM, STORE, SPILL, CALL)
    assert found.words(end, SP) == [0x10]


def test_what_an_earlier_instruction_stored_does_not_count() -> None:
    found, end = homes(STORE, SUM, SPILL, JUMP, HANDLER, CALL)
    assert found.words(end, SP) == []
    found, end = homes(STORE, SUM, SPILL, JUMP, b"\x90" * 20, CALL)
    assert found.words(end, SP) == []


def test_a_branch_leads_behind_an_indirect_jump() -> None:
    """The slow part of an instruction lies behind its fast part."""
    over = bytes([0x75, 2 + 3])  # jne: over CALL and JUMP
    found, end = homes(STORE, SUM, SPILL, over, CALL, JUMP, CALL)
    assert found.words(end, SP) == [0x10]
    far = bytes.fromhex("0f8505000000")
    found, end = homes(STORE, SUM, SPILL, far, CALL, JUMP, CALL)
    assert found.words(end, SP) == [0x10]
    elsewhere = bytes([0x75, 1])
    found, end = homes(STORE, SUM, SPILL, elsewhere, CALL, JUMP, CALL)
    assert found.words(end, SP) == []
