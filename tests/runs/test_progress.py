"""What reproduce prints while a notebook trains."""

import time

from imder_lib.runs.progress import progress_shown, show

HEAD = "stage,epoch,train,valid,lr,kept,seconds\n"


def test_each_new_epoch_is_a_line(tmp_path, capsys):
    path, seen = tmp_path / "digits" / "seed1" / "kit" / "history.csv", {}
    show(tmp_path, seen)
    assert capsys.readouterr().out == ""
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + "diffusion,1,1.0,0.9,0.004,True,2.5\n")
    show(tmp_path, seen)
    assert capsys.readouterr().out == "  digits/seed1/kit: diffusion epoch 1, valid 0.9000, 2.5 s\n"
    show(tmp_path, seen)
    assert capsys.readouterr().out == ""  # nothing new
    path.write_text("")  # a file that cannot be read yet
    show(tmp_path, seen)
    assert capsys.readouterr().out == ""


def test_epochs_of_before_are_not_repeated(tmp_path, capsys):
    path = tmp_path / "history.csv"
    path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5\n")
    with progress_shown(tmp_path, every=0.02):
        time.sleep(0.2)
        assert "fusion" not in capsys.readouterr().out
        path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5\nfusion,2,0.8,0.7,0.004,True,2.4\n")
        time.sleep(0.5)
    assert "fusion epoch 2, valid 0.7000" in capsys.readouterr().out
