"""Faces of the package fonts-aenigma that the tasks of an alphabet leave out.

Measured in four folds, no family on both sides: a small network was trained on three quarters of the 465 faces and
tested on the last quarter. Faces with fewer than 45 % of the characters recognised are left out: they draw ornaments,
cubes, parts of layers, or small letters in a large frame. About twenty more were added by eye. Faces that draw
capitals as small letters were found by comparing the glyphs.
"""

from __future__ import annotations

_UNREADABLE = """
    1015snr 3dlet 90stars bandwdth bin01st binaryt binaryx binx01s bitbttf bloktilt circulat claw1 claw2 dblayer1
    dystorqu edunline encapsul entangle entlayrb fauxsnow graze hdmaker hearts ilits inertia konecto1 konecto2 lineding
    lynx nucleus numskull overhead pindown pindownp plasdrpe qbicle1 qbicle2 qbicle3 qbicle4 reasonsh rotundo scalines
    slender spheroid symmetry tearful unrespon vertigo vertigo2 waywards weaver xeroxmal xmaslght zeldadxt zurklezo
"""

NO_UPPER = f"""
    {_UNREADABLE}
    powdwrk5 queasyol sequence snailets
"""

# Most of these draw capitals in place of small letters.
NO_LOWER = f"""
    {_UNREADABLE}
    18holes 4shadow 4shadowo acknowtt ccaps ccapshad chintzy chintzys codelife collecro collecrs collecto collects
    dblayer2 dblayer3 dblayer4 dblbogey editundo edundot embosst1 embosst2 embosst3 falsepos falsposr flipside gesture
    gestures gesturet gesturts gyroresh gyrose gyrosesq jawbhard jawbreak jawbrko1 jawbrko2 kickflip knot konector
    koneerie lowdown mimaalt1 mimaalt2 mimafuse mishmash pdark powdwrk5 pseudo reason revert revertro rotund skullcap
    slenderw spheroix tetri underwho united upheavtt upraise vertigup vertiup2 visitor1 visitor2 wagerlos whatever
    wyvernwi yielding zerovelo zoetrope zoidal zurklezs
"""

NO_DIGITS = f"""
    {_UNREADABLE}
    4shadow 4shadowo combuspl combusti fidgety gaposiso grudge grudge2 inktank kataacti raydiat2 Swirled2 united urcompo
    xtrusion
"""
